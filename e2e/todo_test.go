package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// htmx is where npm has put htmx 4.
const htmx = "js/node_modules/htmx.org/dist"

// todos waits until the list of example/todo has exactly these items.
func (p *page) todos(texts ...string) {
	p.t.Helper()
	p.until(`JSON.stringify([...document.querySelectorAll("#list button")].map((b) => b.textContent)) === ` + quoted(quoted(append([]string{}, texts...))))
}

// add types an item and presses Enter.
func (p *page) add(text string) {
	p.t.Helper()
	p.until(`document.querySelector("input").value === ""`)
	p.do(chromedp.SendKeys(chromedp.CSS("input"), text+"\r"))
}

// done ticks off the nth item.
func (p *page) done(n int) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS("#list li:nth-child(" + string(rune('0'+n)) + ") button")))
}

// Two windows are in step, with htmx and without it, whatever happens to their
// connections and to the server.
func TestTodo(t *testing.T) {
	for name, folder := range map[string]string{"htmx": htmx, "without-htmx": "no/such/folder"} {
		t.Run(name, func(t *testing.T) {
			s, b := start(t, "todo", "-htmx", folder)
			network := newNetwork(t, s)
			ann := b.visit(s.home(), "Ann", 800, 600)
			ben := b.visit(network.url(""), "Ben", 800, 600)
			both := func(texts ...string) {
				t.Helper()
				ann.todos(texts...)
				ben.todos(texts...)
			}
			both()
			ann.add("bread")
			both("bread")
			ben.add(`<b>milk</b> & "honey"`)
			both("bread", `<b>milk</b> & "honey"`)
			ben.done(1)
			both(`<b>milk</b> & "honey"`)
			ann.add("tea")
			both(`<b>milk</b> & "honey"`, "tea")

			network.Part()
			ann.add("rice")
			ann.todos(`<b>milk</b> & "honey"`, "tea", "rice")
			ann.done(1)
			ann.todos("tea", "rice")
			ben.todos(`<b>milk</b> & "honey"`, "tea") // as it was
			network.mend()
			both("tea", "rice")

			s.terminate()
			again := run(t, "todo", "-addr", s.addr, "-htmx", folder)
			both() // the new process has a new memory
			ben.add("after")
			both("after")
			again.terminate()
		})
	}
}
