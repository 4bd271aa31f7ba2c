package channels

import (
	"net/http"
	"net/url"
	"strings"

	origins "github.com/channels-go/channels/internal/origin"
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
	// Where the browser has said that it is another site, the same host is
	// that of a page without TLS.
	if site == "" && strings.EqualFold(u.Host, r.Host) {
		return origin, true
	}
	for _, p := range h.opts.AllowedOrigins {
		if origins.Match(p, u) {
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

// checkOrigin answers for CORS, and refuses browsers on other websites.
func (h *Hub) checkOrigin(w http.ResponseWriter, r *http.Request, e endpoint) bool {
	origin, ok := h.originAllowed(r, e)
	head := w.Header()
	if origin != "" && !headerHas(head, "Vary", "Origin") { // the app's own CORS may have said so
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
