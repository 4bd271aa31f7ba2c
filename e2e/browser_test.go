package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/e2e/internal/chromium"
)

// deadline bounds every wait. It is far longer than any wait takes, except for
// a server that drains, which may take its 10 s.
const deadline = 3 * time.Minute // a busy machine sends 200 messages from a page in one

// browser is a headless Chromium, shared by all tests. Each page is as if it
// were on its own computer.
type browser struct {
	t   testing.TB
	ctx context.Context
}

func newBrowser(t testing.TB) *browser {
	t.Helper()
	ctx, err := startChromium()
	require.NoError(t, err)
	return &browser{t: t, ctx: ctx}
}

// running is Chromium's context. It is nil until a test needs a browser.
var running context.Context

// startChromium starts Chromium at the first call.
var startChromium = sync.OnceValues(func() (_ context.Context, err error) {
	running, err = chromium.Start(filepath.Join(binaries, "chromium"),
		chromedp.Flag("force-prefers-reduced-motion", true), // without a GPU, an animation takes much of a processor; see TestSmallPhone
		chromedp.Flag("host-resolver-rules", "MAP "+plainHost+" 127.0.0.1"))
	return running, err
})

// endChromium ends Chromium if a test has needed it.
func endChromium() error {
	if running == nil {
		return nil
	}
	return chromium.End(running, deadline)
}

// plainHost is a name of this machine that no browser takes for a secure
// context, unlike localhost.
const plainHost = "intranet.test"

// page is a tab, as if it were on its own computer: it also has its own
// storage.
type page struct {
	t    testing.TB
	ctx  context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	errors []string // exceptions, and violations of the page's security policy
}

// open opens the chat as a new visitor.
func (b *browser) open(url, name string, width, height int64) *page {
	b.t.Helper()
	p := b.visit(url, name, width, height)
	p.do(
		chromedp.SendKeys(chromedp.CSS("#name-input"), name),
		chromedp.Click(chromedp.CSS("#name-save")),
	)
	p.state("online")
	return p
}

// visit opens an address as a new visitor.
func (b *browser) visit(url, name string, width, height int64) *page {
	b.t.Helper()
	ctx, stop := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	p := &page{t: b.t, ctx: ctx, stop: stop}
	require.NoError(b.t, chromedp.Do(ctx))
	messages := chromedp.Console(ctx)
	go func() { // ends with ctx
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleException || strings.Contains(m.Text, "Content Security Policy") {
				p.mu.Lock()
				p.errors = append(p.errors, m.Text)
				p.mu.Unlock()
			}
		}
	}()
	b.t.Cleanup(func() {
		defer stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		assert.Empty(b.t, p.errors, "%s's page has errors", name)
	})
	p.do(
		chromedp.EmulateViewport(width, height),
		chromedp.Navigate(url),
	)
	return p
}

// join opens an address as a new visitor with a name.
func (b *browser) join(url, name string) *page {
	b.t.Helper()
	return b.open(url, name, 1280, 800)
}

// do has the browser do something. The page may draw an element anew between the moment
// that it is found and the moment that it is clicked on: then it is found again.
func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, deadline)
	defer cancel()
	for _, a := range actions {
		err := chromedp.Do(ctx, a)
		for err != nil && strings.Contains(err.Error(), "Could not find node") {
			err = chromedp.Do(ctx, a)
		}
		require.NoError(p.t, err)
	}
}

// eval returns the value of a JavaScript expression.
func eval[T any](p *page, expression string, opts ...chromedp.EvaluateOption) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, deadline)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, opts...))
	require.NoError(p.t, err, expression)
	return v
}

// until waits for a JavaScript condition. A condition that throws is not yet
// met: what it reads may not exist yet.
func (p *page) until(condition string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, deadline)
	defer cancel()
	met := chromedp.Evaluate[bool](fmt.Sprintf(`new Promise((done) => {
		const check = () => {
			try { if (!(%s)) return; } catch { return; }
			clearInterval(timer);
			done(true);
		};
		const timer = setInterval(check, 20);
	})`, condition), chromedp.EvalAwaitPromise)
	_, err := chromedp.Run(ctx, met)
	for err != nil && ctx.Err() == nil { // it went to another page meanwhile
		if err = chromedp.Do(ctx, chromedp.WaitReady("body")); err == nil {
			_, err = chromedp.Run(ctx, met)
		}
	}
	if err != nil {
		require.FailNow(p.t, "the page never met the condition "+condition, "%v; it shows\n%s", err, eval[string](p, `document.body?.innerText ?? ""`))
	}
}

// visit goes to another room.
func (p *page) visit(room string) {
	p.t.Helper()
	eval[string](p, `location.hash = `+quoted(room))
	p.until(`document.getElementById("room-name").textContent === ` + quoted(room))
}

func (p *page) state(state string) {
	p.t.Helper()
	p.until(`document.getElementById("state").dataset.state === ` + quoted(state))
}

// message is a message that the page shows.
type message struct {
	Offset     int
	From, Text string
}

const shown = `[...document.querySelectorAll("#messages [data-offset]")].map((li) => ({
	Offset: +li.dataset.offset, From: li.querySelector(".from").textContent, Text: li.querySelector(".text").textContent }))`

func (p *page) messages() []message {
	p.t.Helper()
	return eval[[]message](p, shown)
}

// shows waits until the page shows exactly these texts, in this order.
func (p *page) shows(texts ...string) {
	p.t.Helper()
	if texts == nil {
		texts = []string{}
	}
	p.until(fmt.Sprintf(`JSON.stringify((%s).map((m) => m.Text)) === %s && !document.querySelector("#outbox li")`, shown, quoted(quoted(texts))))
}

// delay makes answers reach the page late, or messages if answers is false, so
// that what was written after them comes first. It applies to later
// connections.
func (p *page) delay(answers bool) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(() => {
		const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
		Object.defineProperty(WebSocket.prototype, "onmessage", { set(f) {
			set.call(this, f && ((e) => e.data.split("\n").forEach((data) => setTimeout(f, data.includes('"rpc":') === %t ? 300 : 0, { data }))));
		} });
		return true;
	})()`, answers))
}

// count counts how often the page shows a text, sent or not, from the moment
// when it first appears. The returned function gives the numbers.
func (p *page) count(text string) func() []int {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(() => {
		const text = %s, counts = (window.counts ??= {})[text] = new Set();
		new MutationObserver(() => {
			const all = [...document.querySelectorAll("#messages .text, #outbox .text")];
			const n = all.filter((e) => e.textContent === text).length;
			if (n || counts.size) counts.add(n);
		}).observe(document.getElementById("scroll"), { childList: true, subtree: true });
		return true;
	})()`, quoted(text)))
	return func() []int {
		p.t.Helper()
		return eval[[]int](p, `[...counts[`+quoted(text)+`]].sort()`)
	}
}

// people waits until the page lists exactly these names.
func (p *page) people(names ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`JSON.stringify([...document.querySelectorAll("#people li .name")].map((e) => e.textContent)) === %s`, quoted(quoted(names))))
}

// say types a text and presses Enter.
func (p *page) say(text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS("#message-input"), text), enter)
}

// fill puts a text into the message field at once, like pasting.
func (p *page) fill(text string) {
	p.t.Helper()
	eval[bool](p, `((input) => {
		input.value = `+quoted(text)+`;
		return input.dispatchEvent(new Event("input"));
	})(document.getElementById("message-input"))`)
}

// enter is only the key: SendKeys would also type its character.
var enter = chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
	for _, event := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		_, err := cdp.Call(ctx, t, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: event, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13, NativeVirtualKeyCode: 13,
		})
		if err != nil {
			return err
		}
	}
	return nil
})

// focuses moves the focus to an element, as somebody does who goes by keyboard.
func (p *page) focuses(selector string) {
	p.t.Helper()
	p.until(`(() => { const e = document.querySelector(` + quoted(selector) + `); e.focus({ focusVisible: true }); return document.activeElement === e })()`)
}

// keeps requires that an element has the focus once the page is drawn again: only then
// does a browser take it from what cannot have it any more.
func (p *page) keeps(selector string) {
	p.t.Helper()
	const id = `document.activeElement.id || document.activeElement.outerHTML.slice(0, 60)`
	has := `[document.activeElement.matches(` + quoted(selector) + `) ? "" : ` + id + `]`
	focus := eval[[]string](p, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(`+has+`))))`, chromedp.EvalAwaitPromise)
	require.Equal(p.t, []string{""}, focus, "%s has lost the focus", selector)
}

// presses Enter on what has the focus.
func (p *page) presses() {
	p.t.Helper()
	p.do(chromedp.KeyEvent("\r"))
}

// holds has what the page posts wait. The returned function lets it go on, or fail.
func (p *page) holds() (release func(fail bool)) {
	p.t.Helper()
	eval[bool](p, `(() => {
		const real = window.fetch;
		window.posts = 0;
		window.fetch = async (path, options) => {
			if (options?.method !== "POST") return real(path, options);
			posts++;
			const fail = await new Promise((go) => (window.release = go));
			window.fetch = real;
			if (fail) throw new TypeError("lost");
			return real(path, options);
		};
		return true;
	})()`)
	return func(fail bool) {
		p.t.Helper()
		require.Equal(p.t, 1, eval[int](p, `posts`), "it was pressed twice, and posts once")
		eval[bool](p, fmt.Sprintf(`(release(%t), true)`, fail))
	}
}

// quoted returns a value as JavaScript.
func quoted(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // as JSON.stringify does
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSpace(b.String())
}
