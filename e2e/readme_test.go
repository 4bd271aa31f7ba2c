package e2e

import (
	"io"
	"net/http"
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
