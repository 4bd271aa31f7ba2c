package channels

import (
	"net/http"
	"net/url"
	"strings"
)

// originAllowed decides by what a browser says of where a request comes from.
// Programs that are no browsers say nothing, and pass.
func (h *Hub) originAllowed(r *http.Request, e endpoint) (origin string, ok bool) {
	origin = r.Header.Get("Origin")
	// A page cannot set Sec-Fetch-Site; it is right also where a proxy has
	// rewritten the Host.
	site := r.Header.Get("Sec-Fetch-Site")
	if site == "same-origin" || origin == "" && (site == "" || site == "none") {
		return origin, true
	}
	if origin == "" {
		// A cross-site GET without CORS: a link or an image. It reads nothing;
		// but a stream would make the visitor a member of the channel.
		return "", e.plain && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return origin, h.anyOrigin() // "null": a sandboxed frame, a file
	}
	if strings.EqualFold(u.Host, r.Host) {
		return origin, true
	}
	for _, p := range h.opts.AllowedOrigins {
		if matchOrigin(p, u) {
			return origin, true
		}
	}
	return origin, false
}

func (h *Hub) anyOrigin() bool {
	for _, p := range h.opts.AllowedOrigins {
		if p == "*" {
			return true
		}
	}
	return false
}

// matchOrigin matches scheme://host[:port], where the host may begin with "*.".
func matchOrigin(pattern string, u *url.URL) bool {
	if pattern == "*" {
		return true
	}
	scheme, host, _ := strings.Cut(pattern, "://")
	if !strings.EqualFold(scheme, u.Scheme) {
		return false
	}
	host, from := withoutDefaultPort(scheme, host), withoutDefaultPort(scheme, u.Host)
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return len(from) > len(suffix) && strings.EqualFold(from[len(from)-len(suffix):], suffix)
	}
	return strings.EqualFold(host, from)
}

// withoutDefaultPort drops the port that browsers leave out of an origin.
func withoutDefaultPort(scheme, host string) string {
	switch strings.ToLower(scheme) {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// checkOrigin answers for CORS, and refuses browsers on other websites.
func (h *Hub) checkOrigin(w http.ResponseWriter, r *http.Request, e endpoint) bool {
	origin, ok := h.originAllowed(r, e)
	head := w.Header()
	if origin != "" {
		head.Add("Vary", "Origin")
	}
	if !ok {
		h.refuse(w, r, errBadOrigin.saying("the origin %.200q is not allowed here; Options.AllowedOrigins lists those besides the server's own", origin))
		return false
	}
	if origin == "" {
		return true
	}
	head.Set("Access-Control-Allow-Origin", origin)
	if !h.anyOrigin() { // with "*", a website's scripts do not act with a visitor's cookies
		head.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		head.Set("Access-Control-Allow-Methods", e.allow())
		head.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
		head.Set("Access-Control-Max-Age", "600")
	}
	return true
}
