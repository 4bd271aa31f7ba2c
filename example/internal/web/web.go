// Package web has what the example programs share: how they start and end, and
// how they serve their pages.
package web

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"io/fs"
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
