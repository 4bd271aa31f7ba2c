// Command chat is a chat for the browser: rooms, who is in them, and what was
// said. It is one process and needs no other server.
//
//	go run ./example/chat
//
// page/room.js has the page's connection. This file has what the server does
// for the chat; package web has what the examples share.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/middleware"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the address to listen on")
	hosts := web.HostFlag()
	flag.Parse()
	web.Main("chat", func(ctx context.Context) error { return run(ctx, *addr, *hosts...) })
}

// run serves the chat on addr until ctx ends, then drains it. Nobody has to log
// in, so it answers only to these hosts.
func run(ctx context.Context, addr string, hosts ...string) error {
	own, err := middleware.Hosts(hosts...)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	hub, err := newHub()
	if err != nil {
		return err
	}
	fmt.Printf("Chat is running: http://%s/\n", listener.Addr())
	return web.Run(ctx, own(routes(hub)), hub, listener)
}

// newHub makes the hub. Every room keeps its last messages and tells its
// members who joins and leaves.
func newHub() (*channels.Hub, error) {
	return channels.New(channels.Options{
		Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{
				HistorySize: 200,
				HistoryTTL:  24 * time.Hour,
				Presence:    channels.PresenceEvents,
			}
		},
		OnPublish:  check,
		DrainDelay: web.DrainDelay,
		Logger:     slog.Default(),
	})
}

// routes serves the page and the hub at one address.
func routes(hub *channels.Hub) http.Handler {
	h := identify(hub.Handler())
	mux := http.NewServeMux()
	mux.Handle("/", web.Page(page, "'none'"))
	mux.Handle("/channel/", h)
	mux.Handle("/v1/", h)
	mux.Handle("/healthz", h)
	mux.Handle("/readyz", h) // for a load balancer
	return mux
}

// identify tells the hub who made a request. Here that is the name that the
// page sends. An app with accounts takes it from its session instead; the rest
// stays the same.
func identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Has("name") {
			name := strings.TrimSpace(q.Get("name"))
			if !web.ValidName(name) {
				http.Error(w, "a name must have 1 to 40 characters, all of them visible", http.StatusBadRequest)
				return
			}
			info, _ := json.Marshal(map[string]string{"name": name}) // a map of strings can always be encoded
			r = r.Clone(channels.WithIdentity(r.Context(), channels.Identity{ID: name, Info: info}))
			q.Del("name") // the hub refuses unknown parameters
			r.URL.RawQuery = q.Encode()
		}
		next.ServeHTTP(w, r)
	})
}

// say is the body of a chat message.
type say struct {
	Text string    `json:"text"`
	From string    `json:"from,omitempty"`
	At   time.Time `json:"at"`
}

// check checks each message before it is published. It adds the author and the
// time, so that nobody can write under another name.
func check(_ context.Context, p *channels.Publication) error {
	if p.Message.Header != "say" {
		if p.Identity.ID != "" {
			return web.Refusal("people can only say something")
		}
		return nil // from a program; the page shows it as the server's message
	}
	var s say
	err := json.Unmarshal(p.Message.Body, &s)
	if err != nil {
		return web.Refusal(`the body has to be like {"text":"hello"}`)
	}
	if s.Text, err = web.Said(s.Text); err != nil {
		return err
	}
	s.From, s.At = p.Identity.ID, time.Now().UTC().Truncate(time.Millisecond)
	p.Message.Body, err = json.Marshal(s)
	return err
}
