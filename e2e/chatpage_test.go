package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A person who has joined can write at once.
func TestFocusIsOnTheMessageAfterJoining(t *testing.T) {
	s, b := start(t, "chat")
	for name, width := range map[string]int64{"Ann": 1280, "Ben": 390} {
		p := b.open(s.url("focus"), name, width, 800)
		p.until(`document.activeElement.id === "message-input"`)
		p.do(chromedp.Click(chromedp.CSS("#" + map[bool]string{true: "me", false: "rooms-toggle"}[width > 700])))
		if width > 700 { // another name
			p.do(chromedp.SendKeys(chromedp.CSS("#name-input"), "Anna"), chromedp.Click(chromedp.CSS("#name-save")))
			p.until(`document.activeElement.id === "message-input"`)
		}
	}
}

func TestLongNameFitsAPhone(t *testing.T) {
	s, b := start(t, "chat")
	long := strings.Repeat("W", 40)
	ann := b.open(s.url("phone"), "Ann", 390, 844)
	ben := b.join(s.url("phone"), long)
	ben.say("hello")
	ann.shows("hello")
	ben.shows("hello")
	ben.do(chromedp.EmulateViewport(390, 844))
	ben.say("mine")
	ann.shows("hello", "mine")
	for _, p := range []*page{ann, ben} {
		p.fits(390, scrolled)
		assert.LessOrEqual(t, eval[float64](p, `Math.max(...[...document.querySelectorAll("#messages .by")].map((e) => e.getBoundingClientRect().right))`), 390.0)
	}
}

// A page begins with the newest messages. Earlier ones are added above them,
// and the reader stays in place.
func TestEarlierMessagesAreThere(t *testing.T) {
	s, b := start(t, "chat")
	var all []string
	for i := range 120 {
		s.post("old", fmt.Sprintf(`{"header":"line","body":%d}`, i))
		all = append(all, fmt.Sprintf("line %d", i))
	}
	ann := b.join(s.url("old"), "Ann")
	ann.shows(all[70:]...)
	const place = `Math.round(document.querySelector('[data-offset="71"]').getBoundingClientRect().top)`
	for _, from := range []int{20, 0} {
		eval[bool](ann, `(document.getElementById("scroll").scrollTop = 0, true)`)
		before := eval[int](ann, place)
		if from == 0 {
			before = -1 // it is far below now
		}
		ann.focuses("#older")
		asked := ann.holdsHistory()
		ann.presses()
		ann.keeps("#older[aria-disabled=true]")
		ann.presses()
		asked()
		ann.shows(all[from:]...)
		ann.keeps(map[bool]string{true: "#older:not([aria-disabled])", false: "#scroll"}[from > 0])
		if before >= 0 {
			assert.InDelta(t, before, eval[int](ann, place), 60, "the reader did not stay in place")
		}
		s.post("old", fmt.Sprintf(`{"header":"line","body":%d}`, len(all)))
		all = append(all, fmt.Sprintf("line %d", len(all)))
		ann.shows(all[from:]...)
	}
	ann.until(`document.getElementById("older").hidden`)
	for i, m := range ann.messages() {
		assert.Equal(t, i+1, m.Offset)
	}
	// A room with few messages has no earlier ones, and another room has its
	// own.
	ann.visit("new")
	ann.state("online")
	ann.say("first")
	ann.shows("first")
	ann.until(`document.getElementById("older").hidden`)
}

// holdsHistory has what the page asks of the history wait. The returned function lets it
// go on.
func (p *page) holdsHistory() (asked func()) {
	p.t.Helper()
	eval[bool](p, `(() => {
		const { send } = WebSocket.prototype;
		window.asked = [];
		WebSocket.prototype.send = function (data) {
			if (data.includes('"history"')) asked.push(() => send.call(this, data));
			else send.call(this, data);
		};
		window.answer = () => {
			WebSocket.prototype.send = send;
			asked.forEach((ask) => ask());
			return asked.length;
		};
		return true;
	})()`)
	return func() {
		p.t.Helper()
		require.Equal(p.t, 1, eval[int](p, `answer()`), "it was pressed twice, and asks once")
	}
}

// A room that cannot be joined tells why. The page does not promise that what
// is written there will be sent.
func TestRoomThatCannotBeJoinedSaysSo(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("lobby"), "Ann")
	refused := func(why string) {
		t.Helper()
		ann.state("refused")
		ann.until(`document.getElementById("why").innerText.includes(` + quoted(why) + `)`)
		ann.until(`document.getElementById("message-input").readOnly`)
		hint := eval[string](ann, `document.getElementById("hint").textContent`)
		assert.NotContains(t, hint, "sent as soon")
	}
	ann.visit(strings.Repeat("x", 201))
	refused("too long")
	ann.keeps("#message-input")
	ann.fill("to nobody")
	ann.presses()
	ann.focuses("#send[aria-disabled]")
	ann.presses()
	assert.Equal(t, "to nobody", eval[string](ann, `document.getElementById("message-input").value`), "it is not sent")
	ann.focuses("#retry")
	ann.presses()
	refused("too long")
	ann.keeps("#scroll")
	assert.LessOrEqual(t, eval[int](ann, `Math.round(document.querySelector("#state").getBoundingClientRect().height)`), 24, "the state fits on one line")
	ann.do(chromedp.Click(chromedp.CSS("#refused a")))
	ann.state("online")
	ann.say("here it works")
	ann.shows("here it works")

	// Only the WebSocket is refused. A browser does not tell why.
	eval[bool](ann, `(localStorage.setItem("name", "x".repeat(41)), true)`)
	ann.do(chromedp.Reload())
	refused("1 to 40 characters")
	eval[bool](ann, `(localStorage.setItem("name", "Ann"), true)`)
	ann.do(chromedp.Reload())
	ann.state("online")
	ann.shows("here it works")
}

// A refused text comes back to its author with what to do. A text that the
// server may accept later is sent again automatically, once.
func TestRefusedTextsSayWhatToDo(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("edit"), "Ann")
	ann.fill(strings.Repeat("x", 2001))
	ann.do(chromedp.Click(chromedp.CSS("#send")))
	ann.until(`["1 to 2000 characters", "make it shorter"].every((part) =>
		document.querySelector("#outbox li[data-state=failed] .fate").textContent.includes(part))`)
	ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:first-of-type")))
	ann.until(`document.getElementById("message-input").value.length === 2001 && !document.querySelector("#outbox li")`)
	ann.fill("shorter")
	ann.do(chromedp.Click(chromedp.CSS("#send")))
	ann.shows("shorter")

	for code, again := range map[int]bool{100: true, 111: true, 104: false} {
		ann.replies(code, again)
		ann.say(fmt.Sprintf("for %d", code))
		if !again {
			ann.until(`document.querySelector("#outbox [data-state=failed] .fate")?.textContent.startsWith("Not sent: the server did not take it")`)
			ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:last-child")))
			ann.until(`!document.querySelector("#outbox li")`)
			continue
		}
		ann.until(`!document.querySelector("#outbox li")`)
		assert.Equal(t, 1, eval[int](ann, fmt.Sprintf(`[...document.querySelectorAll("#messages .text")].filter((e) => e.textContent === "for %d").length`, code)))
	}
}

// replies has what is said next refused with a code. Its message is for programs.
func (p *page) replies(code int, temporary bool) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(() => {
		const before = WebSocket.prototype.send;
		WebSocket.prototype.send = function (data) {
			const { id, rpc } = JSON.parse(data);
			if (!rpc) return before.call(this, data);
			WebSocket.prototype.send = before;
			setTimeout(() => this.onmessage({ data: JSON.stringify({ id, error: { code: %d, message: "for programs", temporary: %t } }) }));
		};
		return true;
	})()`, code, temporary))
}

// A message without an answer survives a reload and is sent once.
func TestUnsentMessagesSurviveAReload(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("reload"), "Ann")
	eval[bool](ann, `(WebSocket.prototype.send = () => {}, true)`)
	ann.say("never left")
	ann.until(`document.querySelector("#outbox li[data-state=sent]")`)
	ann.do(chromedp.Reload())
	ann.shows("never left")
	ann.do(chromedp.Reload())
	ann.shows("never left")
}

// A message whose answer was lost is sent again after a reload, and said once.
func TestUnansweredMessagesAreSaidOnceAfterAReload(t *testing.T) {
	s, b := start(t, "chat")
	network := newNetwork(t, s)
	ann := b.join(s.url("again"), "Ann")
	ben := b.join(network.url("again"), "Ben")
	network.ToClient(lose)
	ben.say("only once")
	ann.shows("only once")
	network.Cut()
	network.ToServer(lose) // so that the page has no answer before the reload
	network.mend()
	ben.do(chromedp.Reload())
	ben.shows("only once")
	ben.say("and this")
	ann.shows("only once", "and this")
}

// A browser may keep a page that was left, and its connection. Its user is no
// longer listed, and is listed again after a step back.
func TestUserWhoLeavesThePageIsNotListed(t *testing.T) {
	s, b := start(t, "chat")
	ann := b.join(s.url("left"), "Ann")
	ben := b.join(s.url("left"), "Ben")
	ann.people("Ann", "Ben")
	ben.do(chromedp.Navigate("about:blank"))
	ann.people("Ann")
	ann.say("are you gone?")
	eval[bool](ben, `Boolean(setTimeout(() => history.back()))`) // deferred, since the page would otherwise leave before it answers
	ben.becomes(`document.getElementById("state")?.dataset.state === "online"`)
	ann.people("Ann", "Ben")
	ben.shows("are you gone?")
}
