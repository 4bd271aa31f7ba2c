package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// In the tests of this file, a browser runs what docs/protocol.md recommends for
// pages, and what pages do by themselves.

// snippets returns the n blocks of code in a language of a document, or of its chapter.
func snippets(t *testing.T, document, chapter, language string, n int) (all []string) {
	t.Helper()
	b, err := os.ReadFile("../" + document)
	require.NoError(t, err)
	text := string(b)
	if chapter != "" {
		_, after, ok := strings.Cut(text, "\n## "+chapter+"\n")
		require.True(t, ok, "%s has no chapter %q", document, chapter)
		text, _, _ = strings.Cut(after, "\n## ")
	}
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	require.Len(t, all, n)
	return all
}

// pages returns the JavaScript of docs/protocol.md: of a page that talks, and of
// one that listens.
func pages(t *testing.T) []string { return snippets(t, "docs/protocol.md", "In a browser", "js", 2) }

// site is a server whose app can be removed, so that only a proxy is left.
type site struct {
	t    *testing.T
	http *httptest.Server
	page string
	hub  atomic.Pointer[channels.Hub]
	away chan struct{} // closed after the first request while the app was down
	gone sync.Once
}

// newSite starts a site for a test that runs in parallel with others.
func newSite(t *testing.T, page string) *site {
	t.Parallel()
	s := &site{t: t, page: page, away: make(chan struct{})}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.down()
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	hub := s.hub.Load()
	switch {
	case r.URL.Path == "/":
		kind := "text/javascript"
		if strings.HasPrefix(s.page, "import ") {
			kind = "module"
		}
		fmt.Fprintf(w, `<!doctype html><title>page</title><script>
			const said = []; console.log = (m) => said.push(m)
			let ws; WebSocket = class extends WebSocket { constructor(url) { super(url); ws = this } }
		</script><script type="%s">%s</script>`, kind, s.page)
	case r.URL.Path == "/favicon.ico":
		w.WriteHeader(http.StatusNoContent)
	case hub == nil:
		http.Error(w, "the app is down", http.StatusBadGateway)
		s.gone.Do(func() { close(s.away) })
	default:
		hub.Handler().ServeHTTP(w, r)
	}
}

func (s *site) up(o channels.Options) *channels.Hub {
	s.t.Helper()
	o.Channel = func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} }
	hub, err := channels.New(o)
	require.NoError(s.t, err)
	s.hub.Store(hub)
	return hub
}

// down ends the app.
func (s *site) down() {
	if hub := s.hub.Swap(nil); hub != nil {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		assert.NoError(s.t, hub.Shutdown(ctx))
	}
}

func (s *site) say(text string) {
	s.t.Helper()
	_, err := s.hub.Load().Publish(s.t.Context(), "chat.lobby", channels.Message{Header: "say", Body: []byte(quoted(map[string]string{"text": text}))})
	require.NoError(s.t, err)
}

// heard waits until the page has received a text the given number of times.
func (p *page) heard(text string, times int) {
	p.t.Helper()
	p.until(fmt.Sprintf(`said.filter((m) => m.header === "say" && m.body.text === %s).length === %d`, quoted(text), times))
}

func TestTheDocumentedPage(t *testing.T) {
	s := newSite(t, pages(t)[0])
	hub := s.up(channels.Options{})
	s.say("before")
	p := newBrowser(t).visit(s.http.URL, "reader", 800, 600)
	p.heard("before", 1)
	p.heard("hi", 1)
	s.say("while connected")
	p.heard("while connected", 1)

	// A broken connection: what is said meanwhile arrives, once.
	eval[bool](p, `(ws.close(), true)`)
	s.say("meanwhile")
	p.heard("meanwhile", 1)
	p.heard("while connected", 1)
	p.heard("before", 1)

	// A replica that goes, and a proxy's own errors.
	require.NoError(t, hub.Drain(t.Context()))
	p.until(`said.some((m) => m.state === "offline" && m.why.code === 3001)`)
	s.down()
	s.up(channels.Options{})
	p.until(`said.some((m) => m.reset?.reason === "epoch")`) // the memory has begun anew
	s.say("after the restart")
	p.heard("after the restart", 1)
}

// A page that may not connect is told so, and does not try for ever.
func TestTheDocumentedPageEndsWhenRefused(t *testing.T) {
	s := newSite(t, pages(t)[0])
	var asked atomic.Int32
	s.up(channels.Options{Authenticate: func(context.Context, string, json.RawMessage) (channels.Identity, error) {
		asked.Add(1)
		return channels.Identity{}, channels.ErrForbidden
	}})
	p := newBrowser(t).visit(s.http.URL, "reader", 800, 600)
	p.until(`said.some((m) => m.state === "closed" && m.why.code === 3500)`)
	p.until(`ws.readyState === 3`)
	require.EqualValues(t, 1, asked.Load(), "it asks only once")
	basetest.Eventually(t, "its publish fails", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		failed := slices.Equal(p.errors, []string{"Uncaught ChannelsError: invalid token"})
		if failed {
			p.errors = nil
		}
		return failed
	})
}

// A WebSocket of one channel that is refused says so in its close code.
func TestARefusedWebSocketSaysWhy(t *testing.T) {
	s := newSite(t, "")
	s.up(channels.Options{Authorize: func(context.Context, channels.Request) error { return channels.ErrExpired }})
	p := newBrowser(t).visit(s.http.URL, "reader", 800, 600)
	code := eval[int](p, `new Promise((done) => { new WebSocket(location.origin.replace("http", "ws") + "/channel/a/").onclose = (e) => done(e.code) })`, chromedp.EvalAwaitPromise)
	require.Equal(t, 3000, code)
}

func TestTheDocumentedListener(t *testing.T) {
	s := newSite(t, pages(t)[1])
	hub := s.up(channels.Options{})
	p := newBrowser(t).visit(s.http.URL, "listener", 800, 600)
	basetest.Eventually(t, "the page is connected", func() bool { return hub.Stats().Connections == 1 })
	s.say("one")
	p.heard("one", 1)
	s.down()
	select {
	case <-s.away:
	case <-time.After(deadline):
		require.FailNow(t, "the page never got the proxy's own error")
	}
	s.up(channels.Options{})
	p.until(`said.some((m) => m.header === "reset")`)
	s.say("two")
	p.heard("two", 1)
}

// Over plain HTTP, except to localhost, a browser does not identify itself as
// one. Its EventSource stays alive all the same.
func TestAnEventSourceOverPlainHTTP(t *testing.T) {
	s := newSite(t, `
		const events = new EventSource("/channel/chat.lobby/?heartbeat=event")
		events.onmessage = (e) => console.log(JSON.parse(e.data))
		events.addEventListener("ping", (e) => console.log(JSON.parse(e.data)))`)
	s.up(channels.Options{MaxConnections: 1, PingPeriod: time.Second})
	busy, err := http.NewRequest("GET", s.http.URL+"/channel/busy/", nil)
	require.NoError(t, err)
	busy.Header.Set("Accept", "text/event-stream")
	first, err := http.DefaultClient.Do(busy)
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(s.http.Listener.Addr().String())
	require.NoError(t, err)
	p := newBrowser(t).visit("http://"+plainHost+":"+port, "listener", 800, 600)
	p.until(`said.some((m) => m.header === "error" && m.body.code === "too_many_connections")`)
	require.NotEqual(t, 2, eval[int](p, `events.readyState`), "closed for good")
	first.Body.Close()
	p.until(`said.some((m) => m.header === "ping" && m.body.every_ms === 1000)`)
	s.say("hello")
	p.heard("hello", 1)
}
