package e2e

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// person is someone's page of example/private-messaging.
type person struct{ *page }

func (b *browser) signIn(url, name string) person {
	b.t.Helper()
	p := b.visit(url, name, 1000, 700)
	p.do(chromedp.SendKeys(chromedp.CSS("#name"), name), chromedp.Click(chromedp.CSS("#login button")))
	p.until(`document.getElementById("me").textContent === ` + quoted(name))
	return person{p}
}

const byName = `[...document.querySelectorAll("#users li")].find((li) => li.querySelector(".name").textContent === %s)`

// sees waits until someone is on the list, connected or not.
func (p person) sees(name string, connected bool) {
	p.t.Helper()
	p.until(fmt.Sprintf(byName+`?.dataset.connected === "%t"`, quoted(name), connected))
}

func (p person) choose(name string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`Boolean(`+byName+`)`, quoted(name)))
	eval[bool](p.page, fmt.Sprintf(`(`+byName+`.querySelector("button").click(), true)`, quoted(name)))
	p.until(`document.getElementById("with").textContent === ` + quoted(name))
}

func (p person) write(text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS("#text"), text+"\r"))
}

// reads waits until the page shows exactly these texts.
func (p person) reads(texts ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`JSON.stringify([...document.querySelectorAll("#messages li")].map((li) => li.textContent)) === %s`, quoted(quoted(append([]string{}, texts...)))))
}

func (p person) reload(name string) {
	p.t.Helper()
	p.do(chromedp.Reload())
	p.until(`document.getElementById("me").textContent === ` + quoted(name))
}

// talk is a conversation of three people, for every kind of store.
func talk(t *testing.T, s *server, b *browser) (ann, ben person) {
	ann, ben = b.signIn(s.home(), "Ann"), b.signIn(s.home(), "Ben")
	eve := b.signIn(s.home(), "Eve")
	ann.sees("Ben", true)
	ben.sees("Ann", true)
	ann.choose("Ben")
	ann.write("hello Ben")
	ann.reads("hello Ben")
	ben.until(fmt.Sprintf(byName+`?.querySelector(".new")`, quoted("Ann")))
	ben.choose("Ann")
	ben.reads("hello Ben")
	ben.write("hello Ann")
	ann.reads("hello Ben", "hello Ann")

	// After a reload it is the same person, and everything is still there.
	ben.reload("Ben")
	ben.choose("Ann")
	ben.reads("hello Ben", "hello Ann")

	// Messages to someone who is away wait.
	eve.sees("Ben", true)
	eve.do(chromedp.Navigate("about:blank"))
	ann.sees("Eve", false)
	ann.choose("Eve")
	ann.reads()
	ann.write("for later")
	ann.reads("for later")
	eve.do(chromedp.Navigate(s.home()))
	eve.until(fmt.Sprintf(byName+`?.querySelector(".new")`, quoted("Ann")))
	eve.choose("Ann")
	eve.reads("for later") // and none of the others' messages
	ann.sees("Eve", true)
	return ann, ben
}

func TestPrivateMessagesInMemory(t *testing.T) {
	s, b := start(t, "private-messaging")
	talk(t, s, b)
}

func TestPrivateMessagesOnRedisSurviveARestart(t *testing.T) {
	redis := redistest.Start(t).Addr
	s, b := start(t, "private-messaging", "-redis", "redis://"+redis+"/0")
	ann, ben := talk(t, s, b)
	s.terminate()
	run(t, "private-messaging", "-addr", s.addr, "-redis", "redis://"+redis+"/0")
	// The open pages go on by themselves, and the sessions hold.
	ann.choose("Ben")
	ann.write("are you there?")
	ann.reads("hello Ben", "hello Ann", "are you there?")
	ben.reload("Ben")
	ben.choose("Ann")
	ben.reads("hello Ben", "hello Ann", "are you there?")
}
