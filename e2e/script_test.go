package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// These are tests of channels.js in what it runs in. ../client/js has those of what it
// does, and the package connect those against a hub.

// burst is how many messages come as fast as they can.
const burst = 20_000

// TestScriptTakesABurst has more come than a page should handle in one go. It tells how
// fast that went and how long the page was busy at a time, but a machine with much else
// to do is no fault of the page.
func TestScriptTakesABurst(t *testing.T) {
	s := newSite(t, `import { connect } from "/channels.js"
		Object.assign(globalThis, { got: 0, wrong: 0, turns: 0, longest: 0, messages: 0 })
		WebSocket = class extends WebSocket {
			set onmessage(f) { super.onmessage = (e) => { messages++; f?.(e) } }
		}
		new PerformanceObserver((list) => {
			for (const e of list.getEntries()) longest = Math.max(longest, e.duration)
		}).observe({ type: "longtask" })
		const breathe = () => { turns++; setTimeout(breathe) }
		const room = connect().channel("chat.lobby")
		room.on("state", (s) => { globalThis.state = s })
		room.on("message", (m) => {
			if (m.body !== got++) wrong++
			if (got === 1) {
				globalThis.began = performance.now()
				breathe()
			}
			globalThis.took = performance.now() - began
			globalThis.breaths = turns
		})`)
	hub, err := channels.New(channels.Options{Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: burst} }})
	require.NoError(t, err)
	s.hub.Store(hub)
	p := newBrowser(t).visit(s.http.URL, "reader", 800, 600)
	p.until(`globalThis.state === "live"`)
	for i := range burst {
		_, err := hub.Publish(context.Background(), "chat.lobby", channels.Message{Header: "n", Body: fmt.Append(nil, i)})
		require.NoError(t, err)
	}
	p.until(fmt.Sprintf(`got >= %d`, burst))
	require.Zero(t, eval[int](p, `wrong`), "none is missing, none comes twice")
	require.Greater(t, eval[int](p, `breaths`), 1, "the page has turns for other things")
	require.Less(t, eval[int](p, `messages`), burst, "what waits comes together")
	t.Logf("%.0f messages/s in %d frames, %d turns for other things, the longest task %.0f ms",
		eval[float64](p, `got * 1000 / took`), eval[int](p, `messages`), eval[int](p, `breaths`), eval[float64](p, `longest`))
}

// A page of another origin loads the module from the hub, which is mounted below a
// prefix, and needs to say no more: the module knows where it came from.
func TestScriptOfAnotherOrigin(t *testing.T) {
	s := newSite(t, "")
	hub := s.up(channels.Options{AllowedOrigins: []string{s.http.URL}})
	far := httptest.NewServer(http.StripPrefix("/rt", hub.Handler()))
	t.Cleanup(far.Close)
	s.page = fmt.Sprintf(`import { connect } from "%s/rt%s"
		for (const transport of ["websocket", "http_stream"]) {
			const c = connect({ transport })
			c.channel("chat.lobby").on("message", (m) => console.log({ ...m, transport: c.transport }))
			await c.publish("chat.lobby", "say", { text: transport })
		}`, far.URL, channels.ScriptPath())
	p := newBrowser(t).visit(s.http.URL, "reader", 800, 600)
	for _, transport := range []string{"websocket", "http_stream"} {
		p.until(fmt.Sprintf(`said.some((m) => m.body.text === %[1]q && m.transport === %[1]q)`, transport))
	}
	p.do(chromedp.Navigate("about:blank")) // the streams end with the page
	basetest.Eventually(t, "the page has gone", func() bool { return hub.Stats().Connections == 0 })
}

// In Node, a program ends once it has closed its client.
func TestScriptLeavesNothingInNode(t *testing.T) {
	t.Parallel()
	hub, err := channels.New(channels.Options{Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 10} }})
	require.NoError(t, err)
	server := httptest.NewServer(hub.Handler())
	t.Cleanup(func() {
		require.NoError(t, hub.Shutdown(context.Background()))
		server.Close()
	})
	for _, transport := range []string{"websocket", "http_stream"} {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		out, err := exec.CommandContext(ctx, "node", "js/leave.mjs", quoted(map[string]string{"url": server.URL, "transport": transport})).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, "from "+transport+"\n", string(out))
	}
}

// The types allow what the module takes, and nothing else.
func TestScriptTypes(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("node", "js/node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipDefaultLibCheck",
		"--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "js/types.ts").CombinedOutput()
	require.NoError(t, err, string(out))
}

// Behind a proxy that does not pass the Host on, the hub takes a page of the site's own
// for a foreign one. The page learns why, and its console says it.
func TestAPageThatIsRefusedLearnsWhy(t *testing.T) {
	s := readme(t, `<script>const warned = []; console.warn = (name, why) => warned.push(name + ": " + why.message)</script>
		<script type="module">
			import { connect } from "/rt/channels.js"
			connect().channel("orders").on("message", () => {})
		</script>`)
	hub, err := url.Parse(s.HTTP.URL)
	require.NoError(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(hub)
		r.Out.Header.Del("Sec-Fetch-Site") // which browsers send to safe addresses only
	}})
	t.Cleanup(proxy.Close)
	p := newBrowser(t).visit(proxy.URL, "reader", 800, 600)
	p.until(`warned.length === 1 && warned[0].startsWith("orders: the origin") && warned[0].endsWith("a proxy has to pass the Host on")`)
}
