package middleware

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	origins "github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/unread"
)

// CORSOptions configures [CORS].
type CORSOptions struct {
	// Origins are the websites whose scripts may read answers, with their
	// visitors' cookies: "https://app.example.com", or "https://*.example.com"
	// for any subdomain. Origins of apps are compared as they are:
	// "capacitor://localhost", "app://.", "file://". "null" is for pages that
	// send no origin, without cookies. "*" is every website, without cookies,
	// and must stand alone.
	Origins []string
	// Methods are those that scripts may use. Default: GET, HEAD, POST, PUT,
	// PATCH, DELETE.
	Methods []string
	// Headers are those that scripts may send. Default: whatever a preflight
	// asks for, since a script that may send Authorization may send the rest.
	Headers []string
	// Exposed are the response headers that scripts may read, besides those
	// that they may always read. Default: Retry-After, WWW-Authenticate, Allow.
	Exposed []string
	// MaxAge is how long a browser may cache the answer to a preflight. Default
	// 10 min; up to 24 h, in whole seconds.
	MaxAge time.Duration
}

// CORS tells browsers which other websites' scripts may read an app's answers
// (the Fetch standard's CORS protocol), and answers their preflights. It is for
// the app's own routes, and for refusals by [JWT] and [RateLimit] around a hub.
// The hub has its own setting for its endpoints, Options.AllowedOrigins, and
// the headers of the two are not combined. List websites that may connect and
// publish in both: a preflight that CORS allows does not reach the hub, but the
// request does.
//
// CORS refuses nothing: browsers keep an answer from a script after the request
// was handled. A request that changes something needs a check of its own.
//
// An error names the wrong option and what is allowed.
func CORS(o CORSOptions) (func(http.Handler) http.Handler, error) {
	def := func(p *[]string, v ...string) {
		if len(*p) == 0 {
			*p = v
		}
	}
	def(&o.Methods, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete)
	c := &cors{origins: slices.Clone(o.Origins), any: slices.Contains(o.Origins, "*"), echo: len(o.Headers) == 0}
	def(&o.Headers, "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
	def(&o.Exposed, strings.Split(origins.Exposed, ", ")...)
	o.MaxAge = cmp.Or(o.MaxAge, 10*time.Minute)
	switch {
	case len(o.Origins) == 0:
		return nil, errors.New("middleware: CORSOptions.Origins is empty; it may have " + origins.Forms + ", the last alone")
	case c.any && len(o.Origins) > 1:
		return nil, errors.New(`middleware: CORSOptions.Origins has "*" together with other origins, which "*" would include without their cookies; use "*" alone or leave it out`)
	case o.MaxAge < 0 || o.MaxAge > 24*time.Hour || o.MaxAge%time.Second != 0:
		return nil, fmt.Errorf("middleware: CORSOptions.MaxAge is %v; it must be 1s to 24h0m0s, in whole seconds", o.MaxAge)
	}
	for _, s := range o.Origins {
		if err := origins.Check(s); err != nil {
			return nil, fmt.Errorf("middleware: CORSOptions.Origins has %w", err)
		}
	}
	for _, f := range []struct {
		name   string
		tokens []string
	}{{"Methods", o.Methods}, {"Headers", o.Headers}, {"Exposed", o.Exposed}} {
		for _, t := range f.tokens {
			if !origins.IsToken(t) || t == "*" {
				return nil, fmt.Errorf(`middleware: CORSOptions.%s has %q; it may have names like "GET" or "Content-Type", but not "*", which browsers ignore for requests with cookies`, f.name, t)
			}
		}
	}
	c.methods, c.headers, c.exposed = strings.Join(o.Methods, ", "), strings.Join(o.Headers, ", "), strings.Join(o.Exposed, ", ")
	c.maxAge = strconv.FormatInt(int64(o.MaxAge/time.Second), 10)
	return c.handler, nil
}

type cors struct {
	origins                           []string
	any                               bool
	echo                              bool   // allow whatever headers a preflight asks for
	methods, headers, exposed, maxAge string // as header values
}

func (c *cors) allows(origin string) bool {
	return c.any || slices.ContainsFunc(c.origins, func(p string) bool { return origins.Match(p, origin) })
}

func (c *cors) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		origin := r.Header.Get("Origin")
		if !c.any {
			h.Add("Vary", "Origin") // also without an Origin, so that caches keep the answers apart
		}
		if origin == "" || !c.allows(origin) {
			next.ServeHTTP(w, r)
			return
		}
		if c.any {
			h.Set("Access-Control-Allow-Origin", "*")
		} else {
			h.Set("Access-Control-Allow-Origin", origin)
			if origin != "null" { // any website can make its own frames send that
				h.Set("Access-Control-Allow-Credentials", "true")
			}
		}
		if isPreflight(r) {
			h.Set("Access-Control-Allow-Methods", c.methods)
			allow := c.headers
			if asked, ok := origins.Requested(r.Header); ok && c.echo {
				allow += ", " + asked
				h.Add("Vary", "Access-Control-Request-Headers")
			}
			h.Set("Access-Control-Allow-Headers", allow)
			h.Set("Access-Control-Max-Age", c.maxAge)
			unread.Leave(w, r)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.Set("Access-Control-Expose-Headers", c.exposed)
		next.ServeHTTP(w, r)
	})
}
