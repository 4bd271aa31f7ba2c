package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
)

// press kills or starts the nth replica.
func (p *page) press(does string, n int) {
	p.t.Helper()
	button := fmt.Sprintf(`#replicas li:nth-child(%d) button[data-does=%s]:not([aria-disabled])`, n, does)
	p.until(`document.querySelector(` + quoted(button) + `)`)
	p.do(chromedp.Click(chromedp.CSS(button)))
}

// With all replicas dead, the page says so. What is written then is kept, even
// over a reload, and sent when there is a replica again.
func TestPageWithAllReplicasDead(t *testing.T) {
	withAndWithoutHistory(t, "2", func(t *testing.T, s *server, b *browser, history bool) {
		ann := b.visit(s.home(), "Ann", 1180, 760)
		ann.state("online")
		ann.until(`document.querySelector("#empty").innerText.includes("second window")`)
		ann.speak("before")
		ann.until(said + `.includes("before")`)
		ann.until(`document.getElementById("empty").hidden`)
		for n := range 2 {
			ann.press("kill", n+1)
		}
		ann.says("All replicas are dead: start one")
		ann.until(`document.getElementById("here").textContent === "no replica" && !document.querySelector("#replicas [aria-current]")`)
		ann.speak("meanwhile 1")
		ann.speak("meanwhile 2")
		const waiting = `JSON.stringify([...document.querySelectorAll("#outbox [data-state=waiting] .text")].map((e) => e.textContent)) === '["meanwhile 1","meanwhile 2"]'`
		ann.until(waiting)
		ann.do(chromedp.Reload())
		ann.until(waiting)
		ann.says("All replicas are dead: start one")
		ann.press("start", 2)
		ann.state("online")
		assert.Equal(t, "replica-2", ann.here())
		want := []string{"meanwhile 1", "meanwhile 2"}
		if history {
			want = append([]string{"before"}, want...)
		}
		ann.until(said + `.length >= ` + fmt.Sprint(len(want)))
		assert.Equal(t, want, eval[[]string](ann, said))
		ann.until(`!document.querySelector("#outbox li")`)

		// The program itself ends: all lights are unknown.
		s.terminate()
		ann.until(`[...document.querySelectorAll("#replicas li")].every((li) => li.dataset.light === "unknown")`)
		assert.NotEqual(t, "online", eval[string](ann, `document.getElementById("state").dataset.state`))
	})
}

// If a duplicate message would go unnoticed, its author decides what happens to
// a message whose answer is lost.
func TestReplicasAnswerThatIsLost(t *testing.T) {
	s, b := start(t, "replicas", "-n", "1")
	ann := b.enter(s, "Ann")
	eval[bool](ann, `(() => {
		const before = WebSocket.prototype.send;
		WebSocket.prototype.send = function (data) {
			if (!data.includes('"publish"')) return before.call(this, data);
			WebSocket.prototype.send = before;
		};
		return true;
	})()`)
	ann.speak("is it said?")
	ann.press("kill", 1)
	ann.press("start", 1)
	ann.until(`document.querySelector("#outbox [data-state=failed] .fate").textContent.includes("may have been sent")`)
	assert.Empty(t, eval[[]string](ann, said))
	ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:first-of-type"))) // "Try again"
	ann.until(`JSON.stringify(` + said + `) === '["is it said?"]' && !document.querySelector("#outbox li")`)

	ann.replies(103, false)
	ann.speak("not allowed")
	ann.until(`document.querySelector("#outbox [data-state=failed] .fate").textContent.startsWith("Not sent: you are not allowed to write here.")`)
	ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:last-child"))) // "Remove"
	ann.replies(111, true)
	ann.speak("again")
	ann.until(said + `.includes("again") && !document.querySelector("#outbox li")`)
	eval[bool](ann, `(document.getElementById("text").value = "x".repeat(2001), document.getElementById("composer").requestSubmit(), true)`)
	ann.until(`document.querySelector("#outbox [data-state=failed] .fate").textContent.includes("make it shorter")`)
	ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:first-of-type"))) // "Edit"
	ann.until(`document.getElementById("text").value.length === 2001 && !document.querySelector("#outbox li")`)
}

// A button that is at work keeps the focus, and does nothing more.
func TestReplicasButtonKeepsTheFocus(t *testing.T) {
	s, b := start(t, "replicas", "-n", "1")
	ann := b.enter(s, "Ann")
	ann.focuses("#replicas button")
	release := ann.holds()
	ann.presses()
	ann.keeps("#replicas button[aria-disabled]")
	ann.presses()
	release(false)
	ann.until(`document.querySelector("#replicas button[data-does=start]:not([aria-disabled])")`)
	ann.keeps("#replicas button")
	ann.presses()
	ann.until(`document.querySelector("#replicas button[data-does=kill]")`)
}

func TestReplicasOnAPhone(t *testing.T) {
	s, b := start(t, "replicas", "-n", "2")
	ben := b.enter(s, strings.Repeat("W", 40))
	ann := b.enter(s, "Ann")
	for _, p := range []*page{ann, ben} {
		p.do(chromedp.EmulateViewport(390, 844))
	}
	ben.talksTo(ann, strings.Repeat("x", 300))
	for _, p := range []*page{ann, ben} {
		p.prefers("color-scheme", "dark")
		p.fits(390, scrolled, `document.querySelector("aside")`)
		assert.Greater(t, p.contrast("#text", "::placeholder"), 4.5, "the placeholder's contrast in dark mode")
	}
}
