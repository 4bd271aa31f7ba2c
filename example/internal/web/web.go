// Package web has what the example programs share: how they start, drain and
// end, how they serve their pages, and what people may say.
package web

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/channels-go/channels"
)

// HostFlag adds the flag -host, which may be repeated.
func HostFlag() *[]string {
	hosts := new([]string)
	flag.Func("host", "a `NAME` that it answers to besides localhost and IP addresses, e.g. chat.example.com; repeatable", func(name string) error {
		*hosts = append(*hosts, name)
		return nil
	})
	return hosts
}

// Main runs a program until a signal ends the context. A second signal ends the
// process at once.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Listen listens on the address of the flag -addr.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("-addr: %w; choose another one, such as -addr 127.0.0.1:8081", err)
	case err != nil:
		return nil, fmt.Errorf("-addr: %w", err)
	}
	return l, nil
}

// NewServer returns a server for a hub, which sets its own deadlines for its
// event streams, since these do not end.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
	}
}

// Serve serves until ctx ends, which is no error. The caller then shuts the
// server down.
func Serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with server.Shutdown
	select {
	case err := <-served: // only a failure ends Serve before Shutdown does
		return err
	case <-ctx.Done():
		return nil
	}
}

// DrainDelay is how long /readyz answers 503 before the drain, so that a load
// balancer notices.
const DrainDelay = 2 * time.Second

// Run serves a handler with a hub in it until ctx ends, then drains the hub.
func Run(ctx context.Context, h http.Handler, hub *channels.Hub, listener net.Listener) error {
	server := NewServer(h)
	err := Serve(ctx, server, listener)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err,
		hub.Drain(ctx),       // tells load balancers, then every page when to reconnect, then closes the connections
		hub.Shutdown(ctx),    // ends the hub's goroutines
		server.Shutdown(ctx)) // waits for the last requests
}

// Page serves the files in the embedded folder "page", as Secure does.
func Page(files embed.FS, formAction string) http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return Secure(http.FileServerFS(page), formAction)
}

// plainHost matches a Host that may be in a Content-Security-Policy as it is.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]+$`)

// Secure lets the page load and run only what this server serves, and send its
// forms to formAction, which is 'none' or 'self'. Some browsers do not count a
// WebSocket of the same host as 'self', so the policy names it.
func Secure(next http.Handler, formAction string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connect := "connect-src 'self'"
		if plainHost.MatchString(r.Host) {
			connect += " ws://" + r.Host + " wss://" + r.Host
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; "+connect+"; "+
			"base-uri 'none'; form-action "+formAction+"; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// ValidName reports whether a name has 1 to 40 characters, all of them visible.
func ValidName(name string) bool {
	n := utf8.RuneCountInString(name)
	return n >= 1 && n <= 40 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// Said returns the text of a chat message without the space around it, or an
// error for the client.
func Said(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch n := utf8.RuneCountInString(text); {
	case n < 1:
		return "", Refusal("a message may have 1 to 2000 characters, and this one has none: write something")
	case n > 2000:
		return "", Refusal(fmt.Sprintf("a message may have 1 to 2000 characters, and this one has %d: make it shorter", n))
	}
	return text, nil
}

// Refusal returns an error whose reason the client sees.
func Refusal(reason string) error {
	return &channels.Error{Code: "refused", Message: reason, Status: http.StatusBadRequest}
}

// Answer answers with JSON.
func Answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(v)
}

// RedisLog logs the Redis client's own messages at level debug, since the hub
// reports the same problems less often.
type RedisLog struct{ Log *slog.Logger }

func (l RedisLog) Printf(ctx context.Context, format string, v ...any) {
	l.Log.DebugContext(ctx, "redis", "says", fmt.Sprintf(format, v...))
}
