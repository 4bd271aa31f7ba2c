package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// readme serves the README's hub as its program does, with a page.
func readme(t *testing.T, page string) *hubtest.Server {
	t.Helper()
	return hubtest.Serve(t, channels.Options{
		Channel: func(name string) (o channels.ChannelOptions) {
			switch {
			case strings.HasPrefix(name, "chat."):
				o.HistorySize, o.Presence = 100, channels.PresenceEvents
			case name == "todo":
				o.HistorySize, o.Publishers = 50, channels.PublishersServer
			}
			return o
		},
		Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
			return channels.Identity{ID: token}, nil
		},
	}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/rt/", http.StripPrefix("/rt", hub))
		mux.Handle("/packages/", http.StripPrefix("/packages/", http.FileServer(http.Dir("js/node_modules"))))
		mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ann") })
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) })
		return mux
	})
}

// logged has what a page logs at hand, as said.
const logged = `<script>const said = []; console.log = (...what) => said.push(what)</script>`

// publish publishes until the condition is met, since a page that is loading hears only
// what comes after.
func publish(t *testing.T, s *hubtest.Server, channel string, m channels.Message, p *page, met string) {
	t.Helper()
	basetest.Eventually(t, met, func() bool {
		_, err := s.Hub.Publish(t.Context(), channel, m)
		require.NoError(t, err)
		return eval[bool](p, met)
	})
}

// The README's three lines follow a channel.
func TestTheReadmesThreeLines(t *testing.T) {
	s := readme(t, logged+snippets(t, "README.md", "", "html", 3)[0])
	p := newBrowser(t).visit(s.HTTP.URL, "reader", 800, 600)
	publish(t, s, "orders", hubtest.Msg("new", `{"id":1}`), p, `JSON.stringify(said.at(-1)) === '["new",{"id":1}]'`)
}

// The README's page shows what is published, publishes what is written into it, also
// while there is no connection, and connects again. The README's program itself is run
// by package docs.
func TestTheReadmesPage(t *testing.T) {
	const sockets = `<script>
		const sockets = []
		WebSocket = class extends WebSocket {
			constructor(...of) { sockets.push(super(...of)) }
		}
	</script>`
	s := readme(t, sockets+snippets(t, "README.md", "", "html", 3)[1])
	network := basetest.NewRelay(t, s.HTTP.Listener.Addr().String())
	p := newBrowser(t).visit("http://"+network.Addr, "reader", 800, 600)
	publish(t, s, "orders", hubtest.Msg("new", `{"id":1}`), p, `document.querySelector("pre").textContent.includes('new: {"id":1}\n')`)
	send := func(note string) {
		t.Helper()
		eval[bool](p, `((form) => (form.note.value = `+quoted(note)+`, form.requestSubmit(), true))(document.forms[0])`)
	}
	send("ready")
	p.until(`document.querySelector("pre").textContent.endsWith('note: "ready"\n') && document.forms[0].note.value === ""`)
	network.Part()
	p.until(`sockets[0].readyState === WebSocket.CLOSED`) // what is sent before that is lost, and the page is told so
	send("still there?")
	network.Lead(s.HTTP.Listener.Addr().String())
	p.until(`document.querySelector("pre").textContent.endsWith('note: "ready"\nnote: "still there?"\n')`)
}

// The README's list is filled by htmx, and has what was published before.
func TestTheReadmesList(t *testing.T) {
	s := readme(t, string(libraries["htmx4"].head)+snippets(t, "README.md", "", "html", 3)[2])
	add := func(html string) {
		t.Helper()
		_, err := s.Hub.Publish(t.Context(), "todo", channels.Message{Header: "message", Body: channels.HTML(html)})
		require.NoError(t, err)
	}
	add("<li>Bread</li>")
	p := newBrowser(t).visit(s.HTTP.URL, "reader", 800, 600)
	const shown = `[...document.querySelectorAll("ul > li")].map((li) => li.textContent).join()`
	p.until(shown + ` === "Bread"`)
	add("<li>Milk</li>")
	p.until(shown + ` === "Bread,Milk"`)
}

// The README's page of many channels hears them all, and says something.
func TestTheReadmesManyChannels(t *testing.T) {
	s := readme(t, logged+`<script type="module">`+snippets(t, "README.md", "", "js", 1)[0]+`</script>`)
	_, err := s.Hub.Publish(t.Context(), "chat.lobby", hubtest.Msg("say", `"earlier"`))
	require.NoError(t, err)
	p := newBrowser(t).visit(s.HTTP.URL, "reader", 800, 600)
	p.until(`said.filter(([user, body, time]) => time > 1e12).map(([user, body]) => JSON.stringify([user, body])).join() === '[null,"earlier"],["ann",{"text":"hi"}]'`)
	p.until(`said.some(([members]) => Array.isArray(members) && members[0]?.user === "ann")`)
	publish(t, s, "orders", hubtest.Msg("new", `{"id":1}`), p, `said.some((one) => JSON.stringify(one) === '["new",{"id":1}]')`)
}
