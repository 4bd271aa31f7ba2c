// Command chat is a chat for the browser: rooms, who is in them, and what was
// said. It is one process and needs no other server.
//
//	go run ./example/chat
//
// A page has one connection for all its rooms, by channels.js. This file has what the
// server does for the chat; package web has what the examples share.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
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
	listener, err := web.Listen(addr)
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
		Authenticate: authenticate,
		OnPublish:    check,
		DrainDelay:   web.DrainDelay,
		Logger:       slog.Default(),
	})
}

// routes serves the page and the hub at one address.
func routes(hub *channels.Hub) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web.Page(page, "'none'"))
	for _, path := range []string{"/channels.js", "/connection/", "/emulation", "/channel/", "/v1/", "/healthz", "/readyz"} { // the last for a load balancer
		mux.Handle(path, hub.Handler())
	}
	return mux
}

// authenticate tells the hub whose connection it is. Here that is the name that
// the page sends. An app with accounts looks the token up, or has a middleware
// around the hub that knows its session; the rest stays the same.
func authenticate(_ context.Context, _ string, data json.RawMessage) (channels.Identity, error) {
	var page struct{ Name string }
	if err := json.Unmarshal(data, &page); err != nil {
		return channels.Identity{}, web.Refusal(`the data has to be like {"name":"Ann"}`)
	}
	name := strings.TrimSpace(page.Name)
	if !web.ValidName(name) {
		return channels.Identity{}, web.Refusal("a name must have 1 to 40 characters, all of them visible")
	}
	return channels.Identity{ID: name}, nil
}

// say is the body of a chat message. The hub says with each message when and by whom it
// was published, so that nobody can write under another name.
type say struct {
	Text string `json:"text"`
	Key  string `json:"key,omitempty"` // by which its author's page knows it
}

// check checks each message before it is published.
func check(_ context.Context, p *channels.Publication) error {
	if p.Message.Header != "say" {
		if p.Identity.ID != "" {
			return web.Refusal("people can only say something")
		}
		return nil // from a program; the page shows it as the server's message
	}
	var s say
	err := json.Unmarshal(p.Message.Body, &s)
	if err != nil || len(s.Key) > 100 {
		return web.Refusal(`the body has to be like {"text":"hello"}`)
	}
	if s.Text, err = web.Said(s.Text); err != nil {
		return err
	}
	p.Message.Body, err = json.Marshal(s)
	return err
}
