package main

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/channels-go/channels/middleware"
)

// tlsAtProxy is the context key of a request that reached a trusted proxy over
// TLS.
type tlsAtProxy struct{}

// behind trusts what proxies of these networks report about a request: its
// client's address, and whether it came over TLS. It ignores such headers from
// others.
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

// saysTLS reads X-Forwarded-Proto. If there are several values, only the last
// is the proxy's own.
func saysTLS(r *http.Request) bool {
	values := strings.Split(strings.Join(r.Header.Values("X-Forwarded-Proto"), ","), ",")
	return strings.EqualFold(strings.TrimSpace(values[len(values)-1]), "https")
}

// overTLS reports whether the browser sent a request over TLS.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Context().Value(tlsAtProxy{}) != nil
}
