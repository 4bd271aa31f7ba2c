package e2e

import (
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// The README's page shows what is published, publishes what is written into it,
// and connects again. The README's program itself is run by package docs.
func TestTheReadmesPage(t *testing.T) {
	html := snippets(t, "README.md", "html", 1)[0]
	server := hubtest.Serve(t, channels.Options{}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/rt/", http.StripPrefix("/rt", hub))
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, html) })
		return mux
	})
	publish := func(body string) {
		t.Helper()
		_, err := server.Hub.Publish(t.Context(), "orders", hubtest.Msg("new", body))
		require.NoError(t, err)
	}

	p := newBrowser(t).visit(server.HTTP.URL, "reader", 800, 600)
	p.until(`socket.readyState === 1`)
	publish(`{"id":1}`)
	p.until(`list.innerText === 'new: {"id":1}'`)
	eval[bool](p, `(form.note.value = "ready", form.requestSubmit(), true)`)
	p.until(`list.innerText === 'new: {"id":1}\nnote: "ready"'`)
	eval[bool](p, `(socket.close(), true)`)
	p.until(`socket.readyState === 3`)
	p.until(`socket.readyState === 1`) // the next one
	publish(`{"id":2}`)
	p.until(`list.innerText.endsWith('new: {"id":2}')`)
}

// The README's ten lines for a page work with the SDK, as npm has it.
func TestTheReadmesSDK(t *testing.T) {
	code := snippets(t, "README.md", "js", 1)[0]
	require.Contains(t, code, `import { Centrifuge } from "centrifuge"`)
	code = regexp.MustCompile(`(?m)^import .*$`).ReplaceAllString(code, "") // it is loaded as a script, without a bundler
	server := hubtest.Serve(t, channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: map[string]int{"chat.lobby": 100}[name]}
		},
	}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/rt/", http.StripPrefix("/rt", hub))
		mux.Handle("/centrifuge.js", http.FileServer(http.Dir("js/node_modules/centrifuge/dist")))
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `<!doctype html><title>page</title><script src="/centrifuge.js"></script>
				<script>const said = []; console.log = (...what) => said.push(what)</script>
				<script type="module">`+code+`; window.orders = orders</script>`)
		})
		return mux
	})
	publish := func(channel, header, body string) {
		t.Helper()
		_, err := server.Hub.Publish(t.Context(), channel, hubtest.Msg(header, body))
		require.NoError(t, err)
	}
	publish("chat.lobby", "message", `"earlier"`)

	p := newBrowser(t).visit(server.HTTP.URL, "reader", 800, 600)
	p.until(`JSON.stringify(said.map(([, data]) => data)) === '["earlier",{"text":"hi"}]'`)
	p.until(`orders.state === "subscribed"`)
	publish("orders", "new", `{"id":1}`)
	p.until(`JSON.stringify(said.at(-1)) === '["new",{"id":1}]'`)
}
