package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// The README's page shows what is published, publishes what is written into it,
// and connects again. The README's program itself is run by package docs.
func TestTheReadmesPage(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	html := regexp.MustCompile("(?s)```html\n(.*?)```").FindSubmatch(readme)
	require.NotNil(t, html)
	hub, err := channels.New(channels.Options{})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/rt/", http.StripPrefix("/rt", hub.Handler()))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.Write(html[1]) })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer hub.Shutdown(t.Context())
	publish := func(body string) {
		t.Helper()
		_, err := hub.Publish(t.Context(), "orders", channels.Message{Header: "new", Body: []byte(body)})
		require.NoError(t, err)
	}

	p := newBrowser(t).visit(server.URL, "reader", 800, 600)
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
