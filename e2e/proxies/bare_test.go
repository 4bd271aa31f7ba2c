//go:build linux

package proxies

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/e2e/internal/chromium"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// bare is nginx as a newcomer begins: with nothing but proxy_pass. It buffers what the
// app answers, asks it by HTTP/1.0, and passes no upgrade on.
func bare(t *testing.T, p *proxy, app target) {
	path := filepath.Join(p.dir, "nginx.conf")
	conf := fmt.Sprintf("events {}\nhttp {\n%s\naccess_log off;\nserver {\nlisten %s;\nlocation / { proxy_pass http://%s; }\n}\n}\n", nginxFolders(p), p.addr, app)
	require.NoError(t, os.WriteFile(path, []byte(conf), 0o600))
	p.argv = nginxCommand(p, path)
}

// follows is a page that shows what is said.
const follows = `<!doctype html><title>page</title><link rel="icon" href="data:,"><script type="module">
	import { connect } from "/channels.js"
	const room = connect().channel("bare")
	window.said = []
	room.on("message", (m) => said.push(m.body))
	window.say = (text) => room.publish("say", text).then(() => "said")
</script>`

// Behind a bare proxy_pass, streams pass each event at once, and a page of channels.js
// goes on without the WebSocket that it cannot have.
func TestBareNginx(t *testing.T) {
	t.Parallel()
	transports := make(chan string, 100)
	app := hubtest.Serve(t, channels.Options{
		Hosts: []string{"localhost"},
		OnConnect: func(_ context.Context, c channels.Client) error {
			transports <- c.Transport
			return nil
		},
	}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", hub)
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, follows) })
		return mux
	})
	host, port, err := net.SplitHostPort(app.HTTP.Listener.Addr().String())
	require.NoError(t, err)
	p := startAs(t, bare, target{host: host, port: port})
	b := &behind{proxy: p, client: newClient(t, p), hub: app.Hub}
	for _, door := range []string{"events", "connection/http_stream"} {
		b.passes(t, door)
		<-transports
	}
	for _, door := range []string{"websocket", "connection/websocket"} {
		_, err := doors[door](b.client, t.Context(), "bare", "")
		require.ErrorContains(t, err, "426", "%s is passed on", door)
	}

	running, err := chromium.Start(t.TempDir())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(running, basetest.Patience)
	defer cancel()
	defer func() { require.NoError(t, chromium.End(running, basetest.Patience)) }()
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("http://"+p.addr+"/")))
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[string](`say("from the page")`, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	require.Equal(t, "said", answer)
	require.Equal(t, "http_stream", <-transports)
	_, err = app.Hub.Publish(t.Context(), "bare", hubtest.Msg("say", `"from the server"`))
	require.NoError(t, err)
	basetest.Eventually(t, "the page has both", func() bool {
		said, err := chromedp.Run(ctx, chromedp.Evaluate[string](`said.join()`))
		return err == nil && said == "from the page,from the server"
	})
}
