package e2e

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// A library swaps what the server renders into a page. The tests take it from npm, as
// users do.
type library struct {
	head    template.HTML                      // what the page loads
	list    string                             // its list; %s is the address of the event stream
	message func(item string) channels.Message // adds one more item to the list
}

// libraries are those that understand format=event. A header is the name of an event.
var libraries = map[string]library{
	"htmx2": {
		head: `<script src="/packages/htmx2/dist/htmx.min.js"></script><script src="/packages/htmx-ext-sse/dist/sse.min.js"></script>`,
		list: `<ul id="list" hx-ext="sse" sse-connect="%s" sse-swap="item" hx-swap="beforeend">`,
		message: func(item string) channels.Message {
			return channels.Message{Header: "item", Body: channels.HTML(item)}
		},
	},
	"htmx4": { // swaps in what has no name, and that is what the header "message" means
		head: `<script src="/packages/htmx.org/dist/htmx.min.js"></script><script src="/packages/htmx.org/dist/ext/hx-sse.min.js"></script>`,
		list: `<ul id="list" hx-sse:connect="%s" hx-swap="beforeend">`,
		message: func(item string) channels.Message {
			return channels.Message{Header: "message", Body: channels.HTML(item)}
		},
	},
	"turbo": {
		head: `<script type="module">
			import { connectStreamSource } from "/packages/@hotwired/turbo/dist/turbo.es2017-esm.js"
			connectStreamSource(new EventSource(document.querySelector("#list").dataset.stream))
		</script>`,
		list: `<ul id="list" data-stream="%s">`,
		message: func(item string) channels.Message {
			return channels.Message{Header: "message", Body: channels.HTML(`<turbo-stream action="append" target="list"><template>` + item + `</template></turbo-stream>`)}
		},
	},
	"datastar": { // the version that npm has; later ones have other words for the same
		head: `<script type="module" src="/packages/@starfederation/datastar/dist/datastar.js"></script>`,
		list: `<ul id="list" data-on-load="@get('%s')">`,
		message: func(item string) channels.Message {
			lines := "mergeMode append\nselector #list"
			for line := range strings.SplitSeq(item, "\n") {
				lines += "\nfragments " + line
			}
			return channels.Message{Header: "datastar-merge-fragments", Body: channels.HTML(lines)}
		},
	},
}

// A list that the server renders, in two windows. While the windows have no connection,
// items are added. After that none is missing, and none is there twice.
func TestListsThatTheServerRenders(t *testing.T) {
	for name, lib := range libraries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTodo(t, lib)
			network := basetest.NewRelay(t, l.server.HTTP.Listener.Addr().String())
			l.add(t, 2) // before anybody looks
			b := newBrowser(t)
			windows := []*page{
				b.visit("http://"+network.Addr, "Ann", 800, 600),
				b.visit("http://"+network.Addr, "Ben", 800, 600),
			}
			shown := func() {
				t.Helper()
				for _, w := range windows {
					w.until(`JSON.stringify([...document.querySelectorAll("#list > li")].map((li) => li.textContent)) === ` + quoted(quoted(l.items)))
				}
			}
			l.add(t, 3)
			shown()
			network.Part()
			basetest.Eventually(t, "both windows are cut off", func() bool { return l.server.Hub.Stats().Connections == 0 })
			l.add(t, 3)
			network.Lead(l.server.HTTP.Listener.Addr().String())
			shown()
			l.add(t, 1)
			shown()
		})
	}
}

// A proxy whose app is away answers 502. After that htmx 4 goes on where it was. htmx 2
// begins again where the page did, which does no harm if each message has the whole list.
func TestListsAfterAProxysError(t *testing.T) {
	whole := libraries["htmx2"]
	all := ""
	whole.list = `<ul id="list" hx-ext="sse" sse-connect="%s" sse-swap="item">`
	whole.message = func(item string) channels.Message {
		all += item
		return channels.Message{Header: "item", Body: channels.HTML(all)}
	}
	for name, lib := range map[string]library{"htmx2": whole, "htmx4": libraries["htmx4"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTodo(t, lib)
			p := newBrowser(t).visit(l.server.HTTP.URL, "Ann", 800, 600)
			shown := func() {
				t.Helper()
				p.until(`JSON.stringify([...document.querySelectorAll("#list > li")].map((li) => li.textContent)) === ` + quoted(quoted(l.items)))
			}
			l.add(t, 2)
			shown()
			l.away.Store(true)
			l.server.HTTP.CloseClientConnections()
			basetest.Eventually(t, "the page has got the error", func() bool { return l.refused.Load() > 0 })
			l.add(t, 2)
			l.away.Store(false)
			shown()
			l.add(t, 1)
			shown()
		})
	}
}

// todo is a server with one list. Only its test changes it.
type todo struct {
	server  *hubtest.Server
	away    atomic.Bool  // only a proxy is there
	refused atomic.Int32 // requests meanwhile
	lib     library
	items   []string
	at      channels.Position // of the last item: a page goes on from there
}

func newTodo(t *testing.T, lib library) *todo {
	l := &todo{lib: lib, items: []string{}}
	keep := func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} }
	l.server = hubtest.Serve(t, channels.Options{Channel: keep}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/channel/", func(w http.ResponseWriter, r *http.Request) {
			if l.away.Load() {
				l.refused.Add(1)
				http.Error(w, "the app is away", http.StatusBadGateway)
				return
			}
			hub.ServeHTTP(w, r)
		})
		mux.Handle("/packages/", http.StripPrefix("/packages/", http.FileServer(http.Dir("js/node_modules"))))
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
			address := "/channel/todo/?format=event&amp;since=" + l.at.String()
			fmt.Fprintf(w, "<!doctype html><title>todo</title>%s"+lib.list, lib.head, address)
			for _, item := range l.items {
				fmt.Fprint(w, rendered(item))
			}
		})
		return mux
	})
	return l
}

// rendered is an item's HTML, of more than one line.
func rendered(item string) string {
	return "<li>" + strings.ReplaceAll(template.HTMLEscapeString(item), " ", "\n") + "</li>"
}

// add adds n items.
func (l *todo) add(t *testing.T, n int) {
	t.Helper()
	for range n {
		item := fmt.Sprintf("item\n%d\n<&>", len(l.items)+1)
		result, err := l.server.Hub.Publish(t.Context(), "todo", l.lib.message(rendered(item)))
		require.NoError(t, err)
		l.items, l.at = append(l.items, item), result.Position
	}
}

// Two lists over one event stream, which resumes both.
func TestListsOverOneStream(t *testing.T) {
	t.Parallel()
	const page = `<!doctype html><title>lists</title>
		<script src="/packages/htmx2/dist/htmx.min.js"></script><script src="/packages/htmx-ext-sse/dist/sse.min.js"></script>
		<div hx-ext="sse" sse-connect="/v1/events?channel=shop&amp;channel=bank&amp;format=event&amp;last=100">
		<ul id="shop" sse-swap="bought" hx-swap="beforeend"></ul><ul id="bank" sse-swap="paid" hx-swap="beforeend"></ul></div>`
	keep := func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} }
	s := hubtest.Serve(t, channels.Options{Channel: keep}, func(hub http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/v1/", hub)
		mux.Handle("/packages/", http.StripPrefix("/packages/", http.FileServer(http.Dir("js/node_modules"))))
		mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
		return mux
	})
	lists := map[string][]string{}
	add := func() {
		t.Helper()
		for channel, header := range map[string]string{"shop": "bought", "bank": "paid"} {
			item := fmt.Sprint(header, " ", len(lists[channel])+1)
			_, err := s.Hub.Publish(t.Context(), channel, channels.Message{Header: header, Body: channels.HTML("<li>" + item + "</li>")})
			require.NoError(t, err)
			lists[channel] = append(lists[channel], item)
		}
	}
	network := basetest.NewRelay(t, s.HTTP.Listener.Addr().String())
	p := newBrowser(t).visit("http://"+network.Addr, "Ann", 800, 600)
	shown := func() {
		t.Helper()
		for channel, items := range lists {
			p.until(`JSON.stringify([...document.querySelectorAll("#` + channel + ` > li")].map((li) => li.textContent)) === ` + quoted(quoted(items)))
		}
	}
	add()
	shown()
	require.Equal(t, 1, s.Hub.Stats().Connections)
	network.Part()
	basetest.Eventually(t, "the page is cut off", func() bool { return s.Hub.Stats().Connections == 0 })
	add()
	add()
	network.Lead(s.HTTP.Listener.Addr().String())
	shown()
	add()
	shown()
}
