package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// program is a user who has signed in without a page.
type program struct {
	t   testing.TB
	url string
	http.Client
	users map[string]string // ids by name
}

func (s *server) signIn(name string) *program {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(s.t, err)
	p := &program{t: s.t, url: "http://" + s.addr, Client: http.Client{Jar: jar}, users: map[string]string{}}
	p.call("POST", "/login", fmt.Sprintf(`{"name":%q}`, name))
	var list struct {
		Data []struct{ Body struct{ ID, Name string } }
	}
	require.NoError(s.t, json.Unmarshal(p.call("GET", "/v1/channel/users/history", ""), &list))
	for _, m := range list.Data {
		p.users[m.Body.Name] = m.Body.ID
	}
	return p
}

func (p *program) call(method, path, body string) []byte {
	p.t.Helper()
	status, answer := request(p.t, &p.Client, method, p.url+path, "", body)
	require.Less(p.t, status, 300, "%s %s: %s", method, path, answer)
	return answer
}

// write sends messages with the numbers from … until-1 and returns their texts.
func (p *program) write(to string, from, until int) (texts []string) {
	p.t.Helper()
	for i := from; i < until; i++ {
		texts = append(texts, fmt.Sprintf("text %d", i))
		p.call("POST", "/messages", fmt.Sprintf(`{"to":%q,"text":%q}`, p.users[to], texts[len(texts)-1]))
	}
	return texts
}

// stays marks the page. The returned function requires that it was not reloaded.
func (p person) stays() (stayed func()) {
	p.t.Helper()
	eval[bool](p.page, `window.stays = true`)
	return func() {
		p.t.Helper()
		assert.True(p.t, eval[bool](p.page, `Boolean(window.stays)`), "the page has reloaded itself")
	}
}

// An inbox keeps 1,000 messages. A page that has missed more adds what is kept
// below what it already shows, and never reloads itself. Neither does a new
// page.
func TestPrivateMessagesMoreThanAreKept(t *testing.T) {
	s, b := start(t, "private-messaging")
	network := newNetwork(t, s)
	ann := b.signIn(network.url(""), "Ann")
	var all []*program
	for i := range 4 {
		all = append(all, s.signIn(fmt.Sprintf("P%d", i)))
	}
	first := all[0].write("Ann", 0, 1)
	ann.choose("P0")
	ann.reads(first...)
	stayed := ann.stays()

	network.Part()
	ann.until(`document.getElementById("state").dataset.state === "offline"`)
	kept := all[0].write("Ann", 1, 300)[199:]
	for _, p := range all[1:] {
		p.write("Ann", 0, 300)
	}
	network.mend()
	ann.reads(append(first, kept...)...)
	ben := b.signIn(s.home(), "Ben")
	ben.choose("Ann")
	ben.write("live")
	ann.until(fmt.Sprintf(byName+`.querySelector(".new")`, quoted("Ben")))
	stayed()

	ann.reload("Ann")
	stayed = ann.stays()
	ann.reads(kept[1:]...) // the conversation is still selected; Ben's message replaced one
	ann.choose("Ben")
	ann.reads("live")
	ben.write("still live")
	ann.reads("live", "still live")
	stayed()
}

// A day later, nothing that was written is kept. Pages, old and new, go on from
// there.
func TestPrivateMessagesWhenAllHasExpired(t *testing.T) {
	r := redistest.Start(t)
	s, b := start(t, "private-messaging", "-redis", "redis://"+r.Addr+"/0")
	ann, ben := b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	ann.choose("Ben")
	ann.write("yesterday")
	ben.choose("Ann")
	ben.reads("yesterday")

	client := r.Client()
	keys, err := client.Keys(t.Context(), "private-messaging:log:*").Result()
	require.NoError(t, err)
	expired := 0
	for _, key := range keys {
		if strings.Contains(key, "{@user:") || strings.Contains(key, "{users}") { // the sessions stay
			require.NoError(t, client.PExpire(t.Context(), key, time.Millisecond).Err())
			expired++
		}
	}
	require.Equal(t, 3, expired)

	eve := b.signIn(s.home(), "Eve") // the next person who signs in
	stayed := []func(){eve.stays()}
	ann.reload("Ann")
	stayed = append(stayed, ann.stays(), ben.stays())
	ann.choose("Eve")
	ann.reads()
	ann.write("today")
	eve.choose("Somebody") // no list has Ann any more, but her message does
	eve.reads("today")
	ben.sees("Eve", true)
	for _, check := range stayed {
		check()
	}
}

// A browser opens six connections to a website over HTTP/1.1. Still, eight tabs
// of one person work.
func TestPrivateMessagesInManyTabs(t *testing.T) {
	s, b := start(t, "private-messaging")
	ann := b.signIn(s.home(), "Ann")
	eval[int](ann.page, `(window.tabs = Array.from({ length: 7 }, () => window.open(location.href, "_blank"))).length`)
	ann.until(`tabs.every((tab) => tab.document.getElementById("state").dataset.state === "online" && tab.document.getElementById("me").textContent === "Ann")`)
	ben := b.signIn(s.home(), "Ben")
	ben.choose("Ann")
	ben.write("to all of you")
	ann.until(`tabs.every((tab) => tab.document.title.startsWith("(1)"))`)
	eval[bool](ann.page, `(tabs.forEach((tab) => tab.close()), true)`)
}

// A burst arrives in the order in which it was written.
func TestPrivateMessagesOfABurstKeepTheirOrder(t *testing.T) {
	s, b := start(t, "private-messaging")
	ann, ben := b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	ann.choose("Ben")
	var texts []string
	for i := range 200 {
		texts = append(texts, fmt.Sprintf("text %d", i))
	}
	eval[bool](ann.page, fmt.Sprintf(`(%s.forEach((text) => {
		document.getElementById("text").value = text;
		document.getElementById("write").requestSubmit();
	}), true)`, quoted(texts)))
	ann.reads(texts...)
	ben.choose("Ann")
	ben.reads(texts...)
	ann.until(`!document.querySelector("#outbox li")`)
}

// While the app is down, everyone's state is unknown. What is written is shown,
// and sent later, once.
func TestPrivateMessagesWhileTheAppIsAway(t *testing.T) {
	redis := redistest.Start(t).Addr
	s, b := start(t, "private-messaging", "-redis", "redis://"+redis+"/0")
	ann, ben := b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	ann.sees("Ben", true)
	ann.choose("Ben")
	ann.write("before")
	ben.choose("Ann")
	ben.reads("before")
	s.terminate()
	ann.until(fmt.Sprintf(byName+`.dataset.connected === "unknown"`, quoted("Ben")))
	ann.until(`document.getElementById("presence").textContent === "you are not connected"`)
	ann.write("meanwhile 1")
	ann.write("meanwhile 2")
	ann.until(`JSON.stringify([...document.querySelectorAll("#outbox .text")].map((e) => e.textContent)) === '["meanwhile 1","meanwhile 2"]'`)
	ann.until(`document.querySelector("#outbox .fate").textContent.includes("trying again")`)

	run(t, "private-messaging", "-addr", s.addr, "-redis", "redis://"+redis+"/0")
	for _, p := range []person{ann, ben} {
		p.reads("before", "meanwhile 1", "meanwhile 2")
	}
	ann.until(`!document.querySelector("#outbox li")`)
	ann.sees("Ben", true)
}

// Unsent messages survive a reload, and a message whose answer was lost arrives
// once.
func TestPrivateMessagesUnsentSurviveAReload(t *testing.T) {
	s, b := start(t, "private-messaging")
	ann, ben := b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	ann.choose("Ben")
	eval[bool](ann.page, `(() => {
		const before = window.fetch;
		window.fetch = async (url, options) => {
			if (url === "messages" && options.body.includes("is lost")) throw new Error("lost");
			const res = await before(url, options);
			if (url === "messages") throw new Error("its answer is lost");
			return res;
		};
		return true;
	})()`)
	ann.write("arrives")
	ann.reads("arrives") // the message itself counts as the answer
	ann.write("this is lost")
	ann.write("and this waits")
	ann.until(`document.querySelectorAll("#outbox li").length === 2 && document.querySelector("#outbox .fate")`)
	ann.reload("Ann")
	ann.reads("arrives", "this is lost", "and this waits")
	ann.until(`!document.querySelector("#outbox li")`)
	ben.choose("Ann")
	ben.reads("arrives", "this is lost", "and this waits")

	// A refused message tells why, and can be removed.
	eval[bool](ann.page, `(() => {
		document.getElementById("text").value = "é".repeat(2001);
		document.getElementById("write").requestSubmit();
		return true;
	})()`)
	ann.until(`document.querySelector("#outbox [data-state=failed] .fate").textContent.includes("this one has 2001")`)
	ann.write("the next one goes")
	ben.reads("arrives", "this is lost", "and this waits", "the next one goes")
	ann.do(chromedp.Click(chromedp.CSS("#outbox .fate button:last-child")))
	ann.until(`!document.querySelector("#outbox li")`)
}

// A user who signs out is gone on all pages, and the next person finds nothing.
func TestPrivateMessagesSignOut(t *testing.T) {
	s, b := start(t, "private-messaging")
	ann, ben := b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	ann.choose("Ben")
	ann.write("hello")
	ann.reads("hello")
	eval[bool](ann.page, `Boolean(window.other = window.open(location.href))`)
	ann.until(`other.document.querySelector("#messages li")`)
	ann.do(chromedp.Click(chromedp.CSS("#logout")))
	ann.becomes(`document.getElementById("login")?.hidden === false && document.getElementById("app").hidden`)
	ben.until(`document.querySelector("#users button").title === "has signed out"`)
	ben.choose("Ann")
	ben.reads("hello")
	ben.until(`document.getElementById("write").hidden`)

	ann.do(chromedp.SendKeys(chromedp.CSS("#name"), "Eve"), chromedp.Click(chromedp.CSS("#login button")))
	ann.until(`document.getElementById("me").textContent === "Eve"`)
	ann.choose("Ben")
	ann.reads()
	assert.False(t, eval[bool](ann.page, `Object.keys(localStorage).concat(Object.keys(sessionStorage)).some((key) => key.startsWith("outbox ") && sessionStorage[key].includes("hello"))`))
}

// A button that is at work keeps the focus, and does nothing more.
func TestPrivateMessagesButtonsKeepTheFocus(t *testing.T) {
	s, b := start(t, "private-messaging")
	ann := b.visit(s.home(), "Ann", 1000, 700)
	ann.do(chromedp.SendKeys(chromedp.CSS("#name"), "Ann"))
	fails := func(button string) {
		t.Helper()
		ann.focuses(button)
		release := ann.holds()
		ann.presses()
		ann.keeps(button + "[aria-disabled]")
		ann.presses()
		release(true)
		ann.keeps(button + ":not([aria-disabled])")
	}
	fails("#login button")
	ann.until(`document.getElementById("login-trouble").textContent.includes("cannot be reached")`)
	ann.presses()
	ann.until(`document.getElementById("me").textContent === "Ann"`)
	fails("#logout")
	ann.until(`document.getElementById("state").dataset.state === "offline"`)
}

// A phone shows either the list or a conversation, in full width.
func TestPrivateMessagesOnAPhone(t *testing.T) {
	s, b := start(t, "private-messaging")
	long := strings.Repeat("W", 40)
	ben := b.signIn(s.home(), long)
	ann := b.signIn(s.home(), "Ann")
	ann.do(chromedp.EmulateViewport(390, 844))
	ann.prefers("color-scheme", "dark")
	width := func(id string) int {
		t.Helper()
		ann.fits(390)
		return eval[int](ann.page, fmt.Sprintf(`Math.round(document.querySelector(%q).getBoundingClientRect().width)`, id))
	}
	ann.sees(long, true)
	assert.Equal(t, []int{390, 0}, []int{width("aside"), width("main")})
	ann.choose(long)
	ann.until(`document.getElementById("app").classList.contains("chosen")`)
	assert.Equal(t, []int{0, 390}, []int{width("aside"), width("main")})
	ben.choose("Ann")
	ben.write(strings.Repeat("x", 300))
	ann.reads(strings.Repeat("x", 300))
	assert.Equal(t, []int{0, 390}, []int{width("aside"), width("main")})
	assert.Greater(t, ann.contrast("#text", "::placeholder"), 4.5, "the placeholder's contrast in dark mode")
	ann.do(chromedp.Click(chromedp.CSS("#back")))
	ann.until(`!document.getElementById("app").classList.contains("chosen")`)
	assert.Equal(t, []int{390, 0}, []int{width("aside"), width("main")})
}
