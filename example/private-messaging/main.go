// Command private-messaging sends messages between two people in the browser.
// It shows who is there, connected or not, and what was written in the last 24
// hours, even after a reload or a restart.
//
//	go run ./example/private-messaging
//	go run ./example/private-messaging -redis redis://127.0.0.1:6379/0
//
// Set a URL with a password as CHANNELS_REDIS in the environment, since others
// on the machine can read a command line.
//
// Everything is kept in channels with a history, so the same code runs on
// memory and on Redis:
//
//	users          who has signed in, and out
//	@user:USER     what USER has sent and received: the user's own channel, which
//	               the hub keeps to USER; each open page of USER is subscribed to it
//	session.HASH   whose session it is; only the server reads it
//
// Behind a proxy that terminates TLS, set -trusted-proxy to the proxy's
// network. The cookie is then for TLS only, and the limits apply to the
// clients' addresses.
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
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/middleware"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the address to listen on")
	redisURL := flag.String("redis", "", "the `URL` of a Redis, e.g. redis://127.0.0.1:6379/0; without it and CHANNELS_REDIS in the environment, everything is in memory")
	var proxies []netip.Prefix
	flag.Func("trusted-proxy", "`NETWORK` of proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted, e.g. 10.0.0.0/8; repeatable", func(v string) error {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			return errors.New("it must be a network like 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/48")
		}
		proxies = append(proxies, p)
		return nil
	})
	hosts := web.HostFlag()
	flag.Parse()
	if u, err := url.Parse(*redisURL); err == nil && u.User.String() != "" {
		fmt.Fprintln(os.Stderr, "private-messaging: -redis has a user or password, which others on this machine can read: set CHANNELS_REDIS in the environment instead")
		os.Exit(2)
	}
	if *redisURL == "" {
		*redisURL = os.Getenv("CHANNELS_REDIS")
	}
	web.Main("private-messaging", func(ctx context.Context) error { return run(ctx, *addr, *redisURL, proxies, *hosts...) })
}

// run serves on addr until ctx ends, then drains. Anyone may sign in, so it
// answers only to these hosts.
func run(ctx context.Context, addr, redisURL string, proxies []netip.Prefix, hosts ...string) error {
	own, err := middleware.Hosts(hosts...)
	if err != nil {
		return err
	}
	var st store.Store // nil: the hub's own memory
	if redisURL != "" {
		o, err := redis.ParseURL(redisURL)
		if err != nil { // which may show the password
			return errors.New("the Redis URL has to be like redis://127.0.0.1:6379/0")
		}
		o.ContextTimeoutEnabled = true
		client := redis.NewClient(o)
		defer client.Close()
		if st, err = redisstore.New(client, redisstore.Options{Prefix: "private-messaging"}); err != nil {
			return err
		}
		defer st.Close()
	}
	listener, err := web.Listen(addr)
	if err != nil {
		return err
	}
	a, err := newApp(st)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	handler, err := behind(proxies, own(a.routes()))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	fmt.Printf("Private messaging is running: http://%s/\n", listener.Addr())
	return web.Run(ctx, handler, a.hub, listener)
}

// kept is how long sessions and messages are kept.
const kept = 24 * time.Hour

// maxUsers is the maximum number of entries in the list of users.
const maxUsers = 10_000

type app struct {
	hub    *channels.Hub
	limits *middleware.Limiter // for sign-ins and for messages
}

func newApp(st store.Store) (*app, error) {
	hub, err := channels.New(channels.Options{
		Store:      st,
		DrainDelay: web.DrainDelay,
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{HistoryTTL: kept, Publishers: channels.PublishersServer}
			switch {
			case name == "users":
				o.HistorySize = maxUsers
			case strings.HasPrefix(name, channels.UserPrefix):
				o.HistorySize = 1000
			case strings.HasPrefix(name, "session."):
				o.HistorySize = 1
			default: // there are no others
				return channels.ChannelOptions{Publishers: channels.PublishersServer}
			}
			return o
		},
		Authorize: func(_ context.Context, r channels.Request) error {
			if id := r.Identity.ID; id != "" && (r.Channel == "users" || r.Channel == channels.UserChannel(id)) {
				return nil
			}
			return channels.ErrForbidden
		},
	})
	if err != nil {
		return nil, err
	}
	// All sign-ins of one address within a day are a small part of maxUsers, so
	// nobody can push the others off the list.
	limits, err := middleware.RateLimit(middleware.RateLimitOptions{
		Address:    middleware.Rate{PerSecond: 1.0 / 60, Burst: 10},
		IPv6Prefix: 48,
		User:       middleware.Rate{PerSecond: 2, Burst: 300},
	})
	return &app{hub, limits}, err
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", a.hub.Handler())
	mux.Handle("/readyz", a.hub.Handler()) // for a load balancer
	mux.Handle("/", web.Page(page, "'self'"))
	mux.Handle("/channels.js", a.hub.Handler())
	mux.Handle("/connection/", a.identify(a.hub.Handler()))
	mux.Handle("/emulation", a.hub.Handler())
	mux.Handle("/channel/", a.identify(a.hub.Handler()))
	mux.Handle("/v1/", a.identify(a.hub.Handler()))
	mux.Handle("POST /login", a.limits.ByAddress(http.HandlerFunc(a.login)))
	mux.HandleFunc("POST /logout", a.logout)
	mux.HandleFunc("GET /me", a.me)
	mux.Handle("GET /connected", a.identify(http.HandlerFunc(a.connected)))
	mux.Handle("POST /messages", a.identify(a.limits.ByUser(http.HandlerFunc(a.send))))
	// A page of another website must not sign its visitors in, or write in
	// their name.
	return http.NewCrossOriginProtection().Handler(mux)
}

// user is someone who has signed in.
type user struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// sessionChannel is the channel that keeps a session. The store never sees the
// id that the browser has.
func sessionChannel(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "session." + hex.EncodeToString(sum[:])
}

// login gives a new user an id and the browser a session.
func (a *app) login(w http.ResponseWriter, r *http.Request) {
	var u user
	if !decode(w, r, &u) {
		return
	}
	u.ID, u.Name = strings.ToLower(rand.Text()[:16]), strings.TrimSpace(u.Name)
	if !web.ValidName(u.Name) {
		http.Error(w, "a name must have 1 to 40 characters, all of them visible", http.StatusBadRequest)
		return
	}
	id := rand.Text()
	if a.remember(w, r, id, u) {
		web.Answer(w, u)
	}
}

// remember keeps a session and its user's name for another 24 hours.
func (a *app) remember(w http.ResponseWriter, r *http.Request, session string, u user) bool {
	body, _ := json.Marshal(u) // cannot fail
	for _, channel := range []string{sessionChannel(session), "users"} {
		if _, err := a.hub.Publish(r.Context(), channel, channels.Message{Header: "user", Body: body}); err != nil {
			channels.WriteError(w, r, err)
			return false
		}
	}
	setCookie(w, r, session, int(kept/time.Second))
	return true
}

// setCookie makes the browser keep a session for the given seconds. A negative
// number deletes the cookie.
func setCookie(w http.ResponseWriter, r *http.Request, session string, seconds int) {
	http.SetCookie(w, &http.Cookie{Name: "session", Value: session, Path: "/", MaxAge: seconds, HttpOnly: true, Secure: overTLS(r), SameSite: http.SameSiteLaxMode})
}

// logout ends a session on all its pages. Nobody can sign in as the same user
// again, so the others are told that the user has gone.
func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	s, ok, err := a.session(r)
	if err == nil && ok {
		body, _ := json.Marshal(user{ID: s.user.ID}) // cannot fail
		for _, channel := range []string{"users", sessionChannel(s.id)} {
			if _, err = a.hub.Publish(r.Context(), channel, channels.Message{Header: "gone", Body: body}); err != nil {
				break
			}
		}
	}
	if err != nil {
		channels.WriteError(w, r, err)
		return
	}
	setCookie(w, r, "", -1)
	if ok {
		// A replica that cannot be told keeps the connection until the session
		// would have expired.
		if _, err := a.hub.DisconnectUser(r.Context(), s.user.ID); err != nil {
			slog.Warn("the pages of a user who has signed out may stay connected to other replicas", "err", err)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// connected returns the users with an open page: those whose inbox has
// subscribers.
func (a *app) connected(w http.ResponseWriter, r *http.Request) {
	if _, ok := signedIn(w, r); !ok {
		return
	}
	ids := []string{}
	for c, err := range a.hub.AllChannels(r.Context(), channels.UserPrefix) {
		if err != nil {
			channels.WriteError(w, r, err)
			return
		}
		if c.Subscribers > 0 {
			ids = append(ids, strings.TrimPrefix(c.Name, channels.UserPrefix))
		}
	}
	web.Answer(w, map[string]any{"data": ids})
}

// session is a browser's session.
type session struct {
	id    string
	user  user
	since time.Time // when it was last renewed
}

// session returns the session of a request, or false if it has none. Any host
// under the same domain can also set a cookie of this name. An invalid one is
// ignored; with sessions of two users, neither counts.
func (a *app) session(r *http.Request) (s session, ok bool, err error) {
	cookies := r.CookiesNamed("session")
	if len(cookies) > 4 {
		return session{}, false, nil
	}
	for _, c := range cookies {
		h, err := a.hub.History(r.Context(), sessionChannel(c.Value), channels.HistoryQuery{Limit: 1})
		if err != nil {
			return session{}, false, err
		}
		if len(h.Messages) == 0 || h.Messages[0].Header != "user" { // no session, or it has ended
			continue
		}
		one := session{id: c.Value, since: h.Messages[0].Time}
		if err := json.Unmarshal(h.Messages[0].Body, &one.user); err != nil {
			return session{}, false, err
		}
		if ok && one.user.ID != s.user.ID {
			return session{}, false, nil
		}
		s, ok = one, true
	}
	return s, ok, nil
}

// identify tells the hub who made a request.
func (a *app) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, ok, err := a.session(r)
		if err != nil {
			channels.WriteError(w, r, err)
			return
		}
		if ok {
			identity := channels.Identity{ID: s.user.ID, Expires: s.since.Add(kept)}
			r = r.WithContext(channels.WithIdentity(r.Context(), identity))
		}
		next.ServeHTTP(w, r)
	})
}

// signedIn returns the user of a request, or refuses it.
func signedIn(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	i, _ := channels.IdentityFrom(r.Context())
	if i.ID == "" {
		http.Error(w, "sign in first", http.StatusUnauthorized)
	}
	return i.ID, i.ID != ""
}

// me tells the page its user and keeps the session alive: it renews the session
// after half of its time.
func (a *app) me(w http.ResponseWriter, r *http.Request) {
	s, ok, err := a.session(r)
	switch {
	case err != nil:
		channels.WriteError(w, r, err)
	case !ok:
		http.Error(w, "sign in first", http.StatusUnauthorized)
	default:
		if time.Since(s.since) > kept/2 && !a.remember(w, r, s.id, s.user) {
			return
		}
		web.Answer(w, s.user)
	}
}

// message is a message from one user to another.
type message struct {
	From string `json:"from"`
	To   string `json:"to"`
	Text string `json:"text"`
	Key  string `json:"key,omitempty"` // chosen by the page, so that it may resend; a reader shows a key once
}

// send puts a message into two inboxes. If it fails in between, the page sends
// it again, and the key prevents a duplicate.
func (a *app) send(w http.ResponseWriter, r *http.Request) {
	from, ok := signedIn(w, r)
	var m message
	if !ok || !decode(w, r, &m) {
		return
	}
	m.From, m.Text = from, strings.TrimSpace(m.Text)
	if n := utf8.RuneCountInString(m.Text); n < 1 || n > 2000 {
		http.Error(w, fmt.Sprintf("a message may have 1 to 2000 characters, and this one has %d", n), http.StatusBadRequest)
		return
	}
	if len(m.To) != 16 || strings.Trim(m.To, "abcdefghijklmnopqrstuvwxyz234567") != "" || len(m.Key) > 100 || strings.ContainsFunc(m.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		http.Error(w, `it must be like {"to":"<a user's id>","text":"hello","key":"<up to 100 letters>"}`, http.StatusBadRequest)
		return
	}
	body, _ := json.Marshal(m)
	var o channels.PublishOptions
	if m.Key != "" {
		o.Key = from + "/" + m.Key
	}
	inboxes := []string{channels.UserChannel(m.To)}
	if m.To != from {
		inboxes = append(inboxes, channels.UserChannel(from))
	}
	for _, channel := range inboxes {
		if _, err := a.hub.PublishWith(r.Context(), channel, channels.Message{Header: "message", Body: body}, o); err != nil {
			channels.WriteError(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second)) // no client may hold a request open
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(v); err != nil {
		http.Error(w, "the request has to be JSON of up to 16 KiB", http.StatusBadRequest)
		return false
	}
	return true
}
