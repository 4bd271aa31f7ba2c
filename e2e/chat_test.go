// Package e2e tests the examples as people use them: the real programs, with
// pages in a real browser.
package e2e

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
)

func TestTwoPagesTalkAndSeeEachOther(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("talk"), "Ann")
	ben := b.join(s.url("talk"), "Ben")

	ann.people("Ann", "Ben")
	ben.people("Ben", "Ann")
	ann.say("hello")
	ben.shows("hello")
	ben.say("hi Ann")
	for _, p := range []*page{ann, ben} {
		p.shows("hello", "hi Ann")
		assert.Equal(t, []message{{1, "Ann", "hello"}, {2, "Ben", "hi Ann"}}, p.messages())
	}

	// Two pages of one person count as one person.
	again := b.join(s.url("talk"), "Ann")
	again.shows("hello", "hi Ann")
	again.say("now from here")
	ben.shows("hello", "hi Ann", "now from here")
	ben.people("Ben", "Ann")
	ann.stop()
	again.say("the other is closed")
	ben.shows("hello", "hi Ann", "now from here", "the other is closed")
	ben.people("Ben", "Ann")
	again.stop()
	ben.people("Ben")
}

func TestRoomsHaveAddressesAndCounts(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url(""), "Ann")
	ann.until(`document.querySelector('#rooms [aria-current]').closest("li").dataset.room === "lobby"`)
	ann.say("in the lobby")
	ann.shows("in the lobby")

	ann.do(chromedp.SendKeys(chromedp.CSS("#room-input"), "우리 방\r"))
	ann.shows()
	ann.state("online")
	assert.Equal(t, "#"+eval[string](ann, `encodeURIComponent("우리-방")`), eval[string](ann, `location.hash`))
	ann.say("안녕하세요")
	ann.shows("안녕하세요")

	ben := b.join(eval[string](ann, `location.href`), "Ben")
	ben.shows("안녕하세요")
	ben.until(`document.querySelector('#rooms li[data-room="우리-방"] small')?.textContent === "2"`)
	// In one step: chromedp would look for the link first, and the page may list
	// the rooms anew before it is clicked.
	eval[bool](ann, `(document.querySelector('#rooms li[data-room="lobby"] a').click(), true)`)
	ann.shows("in the lobby")
	ben.people("Ben", "Ann") // she is still there
	ben.until(`document.querySelector('#rooms li[data-room="lobby"] small')?.textContent === "1"`)
}

// A page stays in the rooms that it has been to, over one connection, until it
// leaves them.
func TestPageHearsItsOtherRooms(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("first"), "Ann")
	eval[bool](ann, `(() => {
		const { send } = WebSocket.prototype;
		window.sockets = new Set();
		WebSocket.prototype.send = function (data) { sockets.add(this); send.call(this, data); };
		return true;
	})()`)
	ben := b.join(s.url("first"), "Ben")
	ben.say("hello")
	ann.shows("hello")
	ann.visit("second")
	ann.state("online")
	ben.say("are you there?")
	const unread = `document.querySelector('#rooms li[data-room="first"] b').textContent`
	ann.until(unread + ` === "1"`)
	ann.until(`document.title === "(1) #second · Chat"`)
	s.post("second", `{"header":"say","body":{"text":"here too"}}`)
	ann.shows("here too")
	ann.visit("first")
	ann.shows("hello", "are you there?")
	ann.until(unread + ` === "" && document.title === "#first · Chat"`)
	ben.people("Ben", "Ann")
	assert.Equal(t, 1, eval[int](ann, `sockets.size`))

	// Whoever leaves the room that is shown sees another one.
	eval[bool](ann, `(document.querySelector('#rooms li[data-room="first"] button').click(), true)`)
	ben.people("Ben")
	ann.until(`document.getElementById("room-name").textContent === "second"`)
	ann.shows("here too")
	ben.say("she is gone")
	ben.shows("hello", "are you there?", "she is gone")
	assert.Empty(t, eval[string](ann, unread))
	ann.visit("first")
	ann.shows("hello", "are you there?", "she is gone")
}

func TestLostConnectionIsResumed(t *testing.T) {
	s, b := start(t, "chat")
	network := newNetwork(t, s)
	ann := b.join(s.url("tunnel"), "Ann")
	ben := b.join(network.url("tunnel"), "Ben")
	ann.say("before")
	ben.shows("before")

	network.Part()
	ben.until(`document.getElementById("state").dataset.state !== "online"`)
	ann.people("Ann")
	missed := []string{"before"}
	for i := range 5 {
		text := fmt.Sprintf("missed %d", i)
		missed = append(missed, text)
		ann.say(text)
		ann.shows(missed...)
	}
	ben.say("from the tunnel")
	ben.until(`document.querySelector('#outbox li[data-state=waiting] .text').textContent === "from the tunnel"`)
	network.mend()

	all := append(missed, "from the tunnel")
	ben.shows(all...)
	ann.shows(all...)
	ann.people("Ann", "Ben")
	ann.say("after")
	ben.shows(append(all, "after")...)
	for i, m := range ben.messages() {
		assert.Equal(t, i+1, m.Offset)
	}
}

func TestMessageWithLostAnswerIsShownOnce(t *testing.T) {
	s, _ := start(t, "chat")
	for name, test := range map[string]struct {
		arrives     bool // the message reaches the server; only its answer is lost
		lateAnswers bool // the answer to the repeated message is late; otherwise the message is late
		elsewhere   bool // meanwhile its author looks into another room
	}{
		"answer-lost":               {true, true, false},
		"answer-lost-message-late":  {true, false, false},
		"answer-lost-other-room":    {true, true, true},
		"message-lost":              {false, true, false},
		"message-lost-message-late": {false, false, false},
		"message-lost-other-room":   {false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			network := newNetwork(t, s)
			ann := newBrowser(t).join(s.url(name), "Ann")
			ben := newBrowser(t).join(network.url(name), "Ben")
			ben.delay(test.lateAnswers)
			counts, seen := ben.count("did you get this?"), []int{1}

			network.ToClient(lose)
			if !test.arrives {
				network.ToServer(lose)
			}
			ben.say("did you get this?")
			ben.until(`document.querySelector('#outbox li[data-state=sent]')`)
			if test.arrives {
				ann.shows("did you get this?")
			}
			network.Part()
			ben.until(`document.querySelector('#outbox li[data-state=waiting] .fate').textContent === "Waiting for the connection"`)
			if test.elsewhere {
				seen = []int{0, 1}
				for _, room := range []string{"elsewhere", name} {
					ben.visit(room)
				}
			}
			network.mend()
			ben.shows("did you get this?")
			ben.say("again")
			ann.shows("did you get this?", "again")
			ben.shows("did you get this?", "again")
			assert.Equal(t, 2, ben.messages()[1].Offset, "the server has a message twice")
			assert.Equal(t, seen, counts(), "how many copies its author saw at once")
		})
	}
}

func TestOwnMessageIsShownOnceWhicheverComesFirst(t *testing.T) {
	s, _ := start(t, "chat")
	for room, lateAnswers := range map[string]bool{"the-message": true, "its-answer": false} {
		t.Run(room, func(t *testing.T) {
			ben := newBrowser(t).join(s.url(""), "Ben")
			ben.delay(lateAnswers)
			ben.visit(room)
			ben.state("online")
			var all []string
			for _, text := range []string{"the first", "another"} {
				counts := ben.count(text)
				s.post(room, `{"header":"line","body":1}`)
				ben.say(text)
				all = append(all, "line 1", text)
				ben.shows(all...)
				assert.Equal(t, []int{1}, counts(), "how many copies its author saw at once")
			}
		})
	}
}

// A page that was asleep for minutes does not send a message again: its key may be
// forgotten, so it would be said twice.
func TestMessageIsNotRepeatedWhenItsKeyMayBeForgotten(t *testing.T) {
	s, b := start(t, "chat")
	network := newNetwork(t, s)
	ann := b.join(s.url("sleep"), "Ann")
	ben := b.join(network.url("sleep"), "Ben")
	const later = `(() => { const now = Date.now; Date.now = () => now() + 5 * 60_000; return true; })()`

	network.ToClient(lose)
	ben.say("good night")
	ann.shows("good night")
	network.Part()
	eval[bool](ben, later)
	network.mend()
	ben.shows("good night") // it has arrived

	network.ToServer(lose)
	ben.say("did you hear me?")
	ben.until(`document.querySelector("#outbox li[data-state=sent]")`)
	network.Part()
	eval[bool](ben, later)
	network.mend()
	ben.until(`document.querySelector("#outbox li[data-state=failed] .fate")?.textContent.includes("may have been sent")`)
	ben.do(chromedp.Click(chromedp.CSS("#outbox .fate button:last-child")))
	ben.shows("good night")
	ben.say("good morning")
	ann.shows("good night", "good morning")
}

func TestReaderWhoMissedTooMuchGetsTheNewest(t *testing.T) {
	s, b := start(t, "chat")
	network := newNetwork(t, s)
	ben := b.join(network.url("busy"), "Ben")
	s.post("busy", `{"header":"line","body":0}`)
	ben.shows("line 0")
	network.Part()
	var last []string
	for i := range 250 { // more than the room keeps
		s.post("busy", fmt.Sprintf(`{"header":"line","body":%d}`, i+1))
		last = append(last, fmt.Sprintf("line %d", i+1))
	}
	network.mend()
	ben.shows(last[200:]...)
	s.post("busy", `{"header":"line","body":"live"}`)
	ben.shows(append(last[200:], `line "live"`)...)
}

func TestPagesOutliveTheServer(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("restart"), "Ann")
	ben := b.join(s.url("restart"), "Ben")
	ann.say("before")
	ben.shows("before")

	s.terminate()
	for _, p := range []*page{ann, ben} {
		p.until(`document.getElementById("state").dataset.state !== "online"`)
	}
	ann.say("written meanwhile")

	again := run(t, "chat", "-addr", s.addr)
	for _, p := range []*page{ann, ben} {
		p.state("online")
	}
	// The new process has a new memory: what was said before is gone.
	ben.shows("written meanwhile")
	ben.say("welcome back")
	ann.shows("written meanwhile", "welcome back")
	again.terminate()
}

func TestWhatPeopleTypeIsOnlyText(t *testing.T) {
	s, b := start(t, "chat")
	evil := `<img src=x onerror="window.ran=true">`
	ann := b.join(s.url("markup"), evil)
	ben := b.join(s.url("markup"), "Ben")
	script := `<script>window.ran=true</script> & "quotes" 'n all javascript:alert(1)`
	ann.say(evil)
	ann.say(script)
	ben.shows(evil, script)
	s.post("markup", `{"header":"<b>hi</b>","body":"`+`<img src=x onerror='window.ran=true'>"}`)
	for _, p := range []*page{ann, ben} {
		p.shows(evil, script, `<b>hi</b> "<img src=x onerror='window.ran=true'>"`)
		assert.Equal(t, evil, p.messages()[0].From)
		assert.Zero(t, eval[int](p, `document.querySelectorAll("#messages :is(img, script, b, a), #people img, #rooms img").length`))
		assert.False(t, eval[bool](p, `"ran" in window`))
	}

	ann.say("see https://example.com/a?b=c#d, and tell me")
	ben.until(`document.querySelector("#messages a")?.href === "https://example.com/a?b=c#d"`)
	assert.Equal(t, "noopener noreferrer nofollow", eval[string](ben, `document.querySelector("#messages a").rel`))
}

func TestProgramsReachThePage(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("build"), "Ann")
	s.post("build", `{"header":"hi","body":{"n":1}}`)
	ann.shows(`hi {"n":1}`)
	s.post("build", `{"header":"say","body":{"text":"all green","from":"Ann"}}`)
	ann.shows(`hi {"n":1}`, "all green")
	assert.Equal(t, []message{{1, "server", `hi {"n":1}`}, {2, "server", "all green"}}, ann.messages())

	// Any JSON, including JSON that looks like what people's pages send.
	texts := []string{`hi {"n":1}`, "all green"}
	for _, body := range []string{`{"key":"k","at":"never"}`, `{"key":"k","at":"never"}`, `"text"`, `[1,[]]`, `null`, `0`} {
		s.post("build", `{"header":"x","body":`+body+`}`)
		texts = append(texts, "x "+body)
	}
	ann.shows(texts...)
	ann.do(chromedp.Reload())
	ann.shows(texts...)
}

func TestReaderWhoScrolledUpStaysThere(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("scroll"), "Ann")
	for i := range 40 {
		s.post("scroll", fmt.Sprintf(`{"header":"line","body":%d}`, i))
	}
	atBottom := `(({scrollTop, clientHeight, scrollHeight}) => scrollTop + clientHeight > scrollHeight - 2)(document.getElementById("scroll"))`
	ann.until(`document.querySelectorAll("#messages [data-offset]").length === 40 && ` + atBottom)
	// A message may come before the scroll event, which comes with the next
	// frame. Here the event never comes.
	eval[bool](ann, `(addEventListener("scroll", (e) => e.stopImmediatePropagation(), { capture: true }), true)`)
	// A keyboard that opens at the same moment does not scroll the reader down
	// either.
	eval[bool](ann, `((scroll, paint = requestAnimationFrame) => (scroll.scrollTop = 10, scroll.style.marginBottom = "31px",
		paint(() => paint(() => window.painted = true)), true))(document.getElementById("scroll"))`)
	ann.until(`window.painted`)
	s.post("scroll", `{"header":"line","body":"new"}`)
	ann.until(`!document.getElementById("newer").hidden`)
	assert.InDelta(t, 10, eval[float64](ann, `document.getElementById("scroll").scrollTop`), 1)
	ann.do(chromedp.Click(chromedp.CSS("#newer")))
	ann.until(atBottom)
	ann.until(`document.getElementById("newer").hidden`)
	ann.keeps("#scroll")
}

// On a small screen, the panels slide over the room, or jump there if reduced motion
// is preferred.
func TestSmallPhone(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.open(s.url("a-room-with-a-rather-long-name-that-does-not-fit"), "Ann with a rather long name, 40 letters..", 360, 740)
	long := "https://example.com/" + fmt.Sprintf("%0200d", 0)
	ann.say(long)
	ann.shows(long)

	ann.fits(360, scrolled)
	for _, motion := range []string{"reduce", "no-preference"} {
		ann.prefers("reduced-motion", motion)
		for _, side := range []string{"rooms", "people"} {
			ann.do(chromedp.Click(chromedp.CSS("#" + side + "-toggle")))
			ann.until(fmt.Sprintf(`document.activeElement === document.querySelector("#%s-panel .close")`, side))
			ann.until(fmt.Sprintf(`(({left, right}) => left >= 0 && right <= 360)(document.getElementById("%s-panel").getBoundingClientRect())`, side))
			ann.fits(360, scrolled)
			ann.do(chromedp.Click(chromedp.CSS("#" + side + "-panel .close")))
			ann.until(fmt.Sprintf(`document.activeElement.id === "%s-toggle"`, side))
			ann.until(fmt.Sprintf(`getComputedStyle(document.getElementById("%s-panel")).visibility === "hidden"`, side))
		}
	}
	ann.say("still here")
	ann.shows(long, "still here")
	ann.fits(360, scrolled)
}
