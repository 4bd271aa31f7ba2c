package main

import (
	"context"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/channels-go/channels/middleware"
)

// plainHost is a Host that can stand in a policy as it is.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]+$`)

// secure lets the page load and run only what this server serves. Not every
// browser counts a WebSocket of the same host as 'self', so it is named.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connect := "connect-src 'self'"
		if plainHost.MatchString(r.Host) {
			connect += " ws://" + r.Host + " wss://" + r.Host
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; "+connect+"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// tlsAtProxy is the context's key of a request that came to a trusted proxy
// over TLS.
type tlsAtProxy struct{}

// behind believes what proxies of these networks say of a request: from where
// it comes, and whether it came over TLS. Others can say of themselves what
// they like.
func behind(proxies []netip.Prefix, next http.Handler) (http.Handler, error) {
	if len(proxies) == 0 {
		return next, nil
	}
	trust, err := middleware.TrustProxies(proxies...)
	if err != nil {
		return nil, err
	}
	next = trust(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		trusted := err == nil && slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(from.Addr().Unmap()) })
		if trusted && saysTLS(r) {
			r = r.WithContext(context.WithValue(r.Context(), tlsAtProxy{}, true))
		}
		next.ServeHTTP(w, r)
	}), nil
}

// saysTLS reads X-Forwarded-Proto. Of several values, only the last is the
// proxy's own.
func saysTLS(r *http.Request) bool {
	values := strings.Split(strings.Join(r.Header.Values("X-Forwarded-Proto"), ","), ",")
	return strings.EqualFold(strings.TrimSpace(values[len(values)-1]), "https")
}

// overTLS says whether the browser has sent a request over TLS.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Context().Value(tlsAtProxy{}) != nil
}
