// Command private-messaging is messages between two people, in the browser:
// who is there, connected or not, and what was written in the last 24 hours,
// also after a reload or a restart.
//
//	go run ./example/private-messaging
//	go run ./example/private-messaging -redis redis://127.0.0.1:6379/0
//
// A URL with a password comes from REDIS_URL in the environment, since others on
// the machine can read a command line.
//
// All that it keeps are channels with a history, so the same code runs on
// memory and on Redis:
//
//	users          who has signed in; its presence tells who is connected
//	inbox.USER     what USER has sent and got; only USER may read it
//	session.HASH   whose session it is; only the server reads it
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the address to listen on")
	redisURL := flag.String("redis", "", "the `URL` of a Redis, e.g. redis://127.0.0.1:6379/0; without it and REDIS_URL in the environment, all is in memory")
	flag.Parse()
	if u, err := url.Parse(*redisURL); err == nil && u.User.String() != "" {
		fmt.Fprintln(os.Stderr, "private-messaging: -redis has a user or password in it, which others on this machine can read: set REDIS_URL in the environment instead")
		os.Exit(2)
	}
	if *redisURL == "" {
		*redisURL = os.Getenv("REDIS_URL")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal does not wait
	if err := run(ctx, *addr, *redisURL); err != nil {
		fmt.Fprintln(os.Stderr, "private-messaging:", err)
		os.Exit(1)
	}
}

// run serves on addr until ctx ends, then lets everybody go.
func run(ctx context.Context, addr, redisURL string) error {
	var st store.Store // nil: the hub's own memory
	if redisURL != "" {
		o, err := redis.ParseURL(redisURL)
		if err != nil { // which may repeat the password
			return errors.New("the URL of Redis has to be like redis://127.0.0.1:6379/0")
		}
		o.ContextTimeoutEnabled = true
		client := redis.NewClient(o)
		defer client.Close()
		if st, err = redisstore.New(client, redisstore.Options{Prefix: "private-messaging"}); err != nil {
			return err
		}
		defer st.Close()
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	a, err := newApp(st)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: a.routes(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with server.Shutdown
	fmt.Printf("Private messaging is running: http://%s/\n", listener.Addr())

	select {
	case err = <-served: // only a failure ends Serve before Shutdown does
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, a.hub.Drain(ctx), a.hub.Shutdown(ctx), server.Shutdown(ctx))
}

// kept is how long sessions and messages are.
const kept = 24 * time.Hour

type app struct{ hub *channels.Hub }

func newApp(st store.Store) (*app, error) {
	hub, err := channels.New(channels.Options{
		Store: st,
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{HistoryTTL: kept, Publishers: channels.PublishersServer}
			switch {
			case name == "users":
				o.HistorySize, o.Presence = 10_000, channels.PresenceEvents
			case strings.HasPrefix(name, "inbox."):
				o.HistorySize = 1000
			case strings.HasPrefix(name, "session."):
				o.HistorySize = 1
			default: // there are no others
				return channels.ChannelOptions{Publishers: channels.PublishersServer}
			}
			return o
		},
		Authorize: func(_ context.Context, r channels.Request) error {
			if id := r.Identity.ID; id != "" && (r.Channel == "users" || r.Channel == "inbox."+id) {
				return nil
			}
			return channels.ErrForbidden
		},
	})
	return &app{hub}, err
}

func (a *app) routes() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("/", secure(http.FileServerFS(files)))
	mux.Handle("/channel/", a.identify(a.hub.Handler()))
	mux.Handle("/v1/", a.identify(a.hub.Handler()))
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("GET /me", a.me)
	mux.HandleFunc("POST /messages", a.send)
	// A page of another website must not sign its visitors in, or write for them.
	return http.NewCrossOriginProtection().Handler(mux)
}

// secure lets the page load and run only what this server serves.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// user is somebody who has signed in.
type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// sessionChannel keeps a session. The store does not get to know the id that
// the browser has.
func sessionChannel(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "session." + hex.EncodeToString(sum[:])
}

// login gives a new person an id, and the browser a session.
func (a *app) login(w http.ResponseWriter, r *http.Request) {
	var u user
	if !decode(w, r, &u) {
		return
	}
	u.ID, u.Name = strings.ToLower(rand.Text()[:16]), strings.TrimSpace(u.Name)
	if n := utf8.RuneCountInString(u.Name); n < 1 || n > 40 || !utf8.ValidString(u.Name) || strings.ContainsFunc(u.Name, unicode.IsControl) {
		http.Error(w, "a name has 1 to 40 characters, all of them visible", http.StatusBadRequest)
		return
	}
	id := rand.Text()
	if a.remember(w, r, id, u) {
		answer(w, u)
	}
}

// remember keeps a session, and its user's name, for another 24 hours.
func (a *app) remember(w http.ResponseWriter, r *http.Request, session string, u user) bool {
	body, _ := json.Marshal(u) // it always encodes
	for _, channel := range []string{sessionChannel(session), "users"} {
		if _, err := a.hub.Publish(r.Context(), channel, channels.Message{Header: "user", Body: body}); err != nil {
			channels.WriteError(w, r, err)
			return false
		}
	}
	http.SetCookie(w, &http.Cookie{Name: "session", Value: session, Path: "/", MaxAge: int(kept / time.Second), HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
	return true
}

// session returns whose session the request belongs to, and since when it is
// kept; false where it belongs to none.
func (a *app) session(r *http.Request) (u user, since time.Time, ok bool, err error) {
	c, err := r.Cookie("session")
	if err != nil {
		return user{}, time.Time{}, false, nil
	}
	h, err := a.hub.History(r.Context(), sessionChannel(c.Value), channels.HistoryQuery{Limit: 1})
	if err != nil || len(h.Messages) == 0 {
		return user{}, time.Time{}, false, err
	}
	err = json.Unmarshal(h.Messages[0].Body, &u)
	return u, h.Messages[0].Time, err == nil, err
}

// identify tells the hub who a request is from.
func (a *app) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, since, ok, err := a.session(r)
		if err != nil {
			channels.WriteError(w, r, err)
			return
		}
		if ok {
			identity := channels.Identity{ID: u.ID, Expires: since.Add(kept)}
			r = r.WithContext(channels.WithIdentity(r.Context(), identity))
		}
		next.ServeHTTP(w, r)
	})
}

// me tells the page who it is, and keeps the session alive.
func (a *app) me(w http.ResponseWriter, r *http.Request) {
	u, since, ok, err := a.session(r)
	switch {
	case err != nil:
		channels.WriteError(w, r, err)
	case !ok:
		http.Error(w, "sign in first", http.StatusUnauthorized)
	default:
		if c, _ := r.Cookie("session"); time.Since(since) > time.Hour && !a.remember(w, r, c.Value, u) {
			return
		}
		answer(w, u)
	}
}

// message is one that goes from one to another.
type message struct {
	From string `json:"from"`
	To   string `json:"to"`
	Text string `json:"text"`
	Key  string `json:"key,omitempty"` // the page's, so that it may send it again
}

// send puts a message into two inboxes: where it fails in between, the page
// sends it again, and the key keeps it from arriving twice.
func (a *app) send(w http.ResponseWriter, r *http.Request) {
	u, _, ok, err := a.session(r)
	if err != nil {
		channels.WriteError(w, r, err)
		return
	}
	var m message
	switch {
	case !ok:
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	case !decode(w, r, &m):
		return
	}
	key := m.Key
	m.From, m.Key, m.Text = u.ID, "", strings.TrimSpace(m.Text)
	if n := utf8.RuneCountInString(m.Text); n < 1 || n > 2000 || len(m.To) != 16 || strings.Trim(m.To, "abcdefghijklmnopqrstuvwxyz234567") != "" || len(key) > 100 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		http.Error(w, `it has to be like {"to":"<a user's id>","text":"1 to 2000 characters","key":"<up to 100 letters>"}`, http.StatusBadRequest)
		return
	}
	body, _ := json.Marshal(m)
	var o channels.PublishOptions
	if key != "" {
		o.Key = u.ID + "/" + key
	}
	inboxes := []string{"inbox." + m.To}
	if m.To != u.ID {
		inboxes = append(inboxes, "inbox."+u.ID)
	}
	for _, channel := range inboxes {
		if _, err := a.hub.Publish(r.Context(), channel, channels.Message{Header: "message", Body: body}, o); err != nil {
			channels.WriteError(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second)) // nobody holds a request open
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(v); err != nil {
		http.Error(w, "the request has to be JSON of up to 16 KiB", http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(v)
}
