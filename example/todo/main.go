// Command todo is a to-do list that all its pages share. The server renders it with
// html/template, and htmx puts what the server renders into the pages, which have no
// JavaScript of their own.
//
//	go run ./example/todo
//
// Each change is published as HTML: the whole list, which is short. A page comes with
// the list and its position in the channel, and goes on from there, so that it misses
// nothing, not even what changes while it is loading.
//
// htmx is not part of this repository: npm ci --prefix e2e/js gets it. Without it, the
// page follows the list by the few lines of page/live.js.
package main

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/middleware"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the address to listen on")
	htmx := flag.String("htmx", "e2e/js/node_modules/htmx.org/dist", "the `FOLDER` of htmx 4")
	hosts := web.HostFlag()
	flag.Parse()
	web.Main("todo", func(ctx context.Context) error { return run(ctx, *addr, *htmx, *hosts...) })
}

// run serves the list on addr until ctx ends. Nobody has to log in, so it answers only
// to these hosts.
func run(ctx context.Context, addr, htmx string, hosts ...string) error {
	own, err := middleware.Hosts(hosts...)
	if err != nil {
		return err
	}
	listener, err := web.Listen(addr)
	if err != nil {
		return err
	}
	l, err := newList(htmx)
	if err != nil {
		return err
	}
	fmt.Printf("Todo is running: http://%s/\n", listener.Addr())
	if l.htmx == "" {
		fmt.Printf("There is no htmx in %s, so the page has a script instead.\n", htmx)
	}
	return web.Run(ctx, own(l.routes()), l.hub, listener)
}

// An item is something to do.
type item struct {
	ID   int
	Text string
}

// A list is what there is to do. Its methods may be called concurrently.
type list struct {
	hub  *channels.Hub
	html *template.Template
	htmx string // its folder, or "" if it is not there

	mu    sync.Mutex // guards the fields below; held while a change is published, so that changes come in order
	items []item
	added int               // how many there ever were
	at    channels.Position // of the last change
}

func newList(htmx string) (*list, error) {
	hub, err := channels.New(channels.Options{
		DrainDelay: web.DrainDelay,
		Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 100, Publishers: channels.PublishersServer}
		},
	})
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(htmx, "htmx.min.js")); err != nil {
		htmx = ""
	}
	l := &list{hub: hub, html: template.Must(template.ParseFS(page, "page/index.html")), htmx: htmx}
	return l, l.publish(context.Background()) // for the first position
}

func (l *list) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web.Page(page, "'self'"))
	mux.Handle("/{$}", web.Secure(http.HandlerFunc(l.show), "'self'"))
	if l.htmx != "" {
		mux.Handle("/htmx/", http.StripPrefix("/htmx/", http.FileServer(http.Dir(l.htmx))))
	}
	for _, path := range []string{"/channel/", "/channels.js", "/connection/", "/emulation", "/readyz"} {
		mux.Handle(path, l.hub.Handler())
	}
	mux.HandleFunc("POST /add", l.change(func(text string) {
		l.added++
		l.items = append(l.items, item{l.added, text})
	}))
	mux.HandleFunc("POST /done", l.change(func(id string) {
		l.items = slices.DeleteFunc(l.items, func(i item) bool { return strconv.Itoa(i.ID) == id })
	}))
	return http.NewCrossOriginProtection().Handler(mux)
}

// show serves the page.
func (l *list) show(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// After two days without a change, the channel has forgotten where it was. A page that
	// wants to go on from there would be told to load again, and again.
	kept, err := l.hub.History(r.Context(), "todo", channels.HistoryQuery{Limit: 1})
	if err == nil && kept.Position != l.at {
		err = l.publish(r.Context())
	}
	if err != nil {
		channels.WriteError(w, r, err)
		return
	}
	l.html.Execute(w, map[string]any{"HTMX": l.htmx != "", "Items": l.items, "At": l.at})
}

// change returns the handler of a form, whose value says what to add or to change.
func (l *list) change(how func(value string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := web.Said(r.PostFormValue("value"))
		if err != nil {
			channels.WriteError(w, r, err)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		how(value)
		l.items = l.items[max(0, len(l.items)-20):] // the newest: nobody has to log in
		// The list has changed, so the others hear of it even if this client goes now.
		if err := l.publish(context.WithoutCancel(r.Context())); err != nil {
			channels.WriteError(w, r, err)
			return
		}
		if r.Header.Get("HX-Request") == "" { // a page without htmx
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		l.html.ExecuteTemplate(w, "add", nil) // an empty form, for the page that has added something
	}
}

// publish sends the list to every page.
func (l *list) publish(ctx context.Context) error {
	var html strings.Builder
	if err := l.html.ExecuteTemplate(&html, "items", l.items); err != nil {
		return err
	}
	// htmx swaps in what has the header "message".
	result, err := l.hub.Publish(ctx, "todo", channels.Message{Header: "message", Body: channels.HTML(html.String())})
	if err == nil {
		l.at = result.Position
	}
	return err
}
