package channels

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	origins "github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/sparingly"
)

// admits decides whether a request may come here, by the name that it calls
// this server and by the page that it comes from, and answers for CORS: also
// where it is refused, so that the script of a page that may come can read
// why. e is nil where nothing is served at the path.
func (h *Hub) admits(w http.ResponseWriter, r *http.Request, e *endpoint) bool {
	answers := len(h.opts.Hosts) == 0 || origins.Answers(h.opts.Hosts, r.Host)
	origin, ok := h.originAllowed(r, e, answers)
	h.answerCORS(w, r, e, origin, ok)
	switch {
	case !answers:
		err := errBadHost.saying("this server does not answer to the host %.200q; Options.Hosts (of the service: -host) names those that it answers to", r.Host)
		h.refuseOutsider(w, r, &h.warnings.host, origin, err)
		return false
	case !ok && e != nil:
		err := errBadOrigin.saying("the origin %.200q is not allowed here: it is not that of the host %.200q, and Options.AllowedOrigins (of the service: -origin) does not list it", origin, r.Host)
		h.refuseOutsider(w, r, &h.warnings.origin, origin, err)
		return false
	}
	return true
}

// originAllowed decides by what a browser says of where a request comes from.
// Programs that are no browsers say nothing, and pass.
func (h *Hub) originAllowed(r *http.Request, e *endpoint, answers bool) (origin string, ok bool) {
	origin = r.Header.Get("Origin")
	// A page cannot set Sec-Fetch-Site; it is right also where a proxy has
	// rewritten the Host.
	site := r.Header.Get("Sec-Fetch-Site")
	if site == "same-origin" || origin == "" && (site == "" || site == "none") {
		return origin, answers
	}
	if origin == "" {
		// A cross-site GET without CORS: a link or an image. It reads nothing;
		// but a stream would make the visitor a member of the channel.
		return "", e != nil && e.plain && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	// Where the browser has said that it is another site, the same host is
	// that of a page without TLS.
	if answers && site == "" && origins.SameHost(origin, r.Host, r.TLS != nil) {
		return origin, true
	}
	for _, p := range h.opts.AllowedOrigins {
		if origins.Match(p, origin) {
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

// refererAllowed asks the only witness that there is where a browser says
// nothing else of where a GET comes from: over plain HTTP it sends Sec-Fetch-Site
// to no host but localhost. A page that hides itself there cannot be told from
// one of our own. It reads nothing, but its visitor is a member for a moment.
func (h *Hub) refererAllowed(r *http.Request) bool {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return true // checkOrigin has judged
	}
	u, err := url.Parse(r.Referer())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return true
	}
	as := *r
	as.Header = http.Header{"Origin": {u.Scheme + "://" + u.Host}}
	_, ok := h.originAllowed(&as, nil, true)
	return ok
}

// allowedHeaders are those that the hub itself reads.
const allowedHeaders = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"

// answerCORS sets the headers by which a browser lets a page's script read the
// answer, whatever that will be.
func (h *Hub) answerCORS(w http.ResponseWriter, r *http.Request, e *endpoint, origin string, ok bool) {
	if origin == "" {
		return
	}
	head := w.Header()
	if !headerHas(head, "Vary", "Origin") { // the app's own CORS may have said so
		head.Add("Vary", "Origin")
	}
	if !ok {
		return
	}
	head.Set("Access-Control-Allow-Origin", origin)
	// With "*", a website's scripts do not act with a visitor's cookies; nor
	// with "null", which any website can make its own frames be.
	if origin != "null" && !h.anyOrigin() {
		head.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		if head.Get("Access-Control-Expose-Headers") == "" {
			head.Set("Access-Control-Expose-Headers", origins.Exposed)
		}
		return
	}
	if e != nil {
		head.Set("Access-Control-Allow-Methods", e.allow())
	}
	head.Set("Access-Control-Max-Age", "600")
	// Who may send Authorization may send what else a page's tools add.
	allow := allowedHeaders
	if asked, ok := origins.Requested(r.Header); ok {
		allow += ", " + asked
		head.Add("Vary", "Access-Control-Request-Headers")
	}
	head.Set("Access-Control-Allow-Headers", allow)
}

// refuseOutsider refuses a request by its host or its origin. Browsers do not
// show their users why, so the log tells the operator, at most once a minute.
func (h *Hub) refuseOutsider(w http.ResponseWriter, r *http.Request, warned *sparingly.Turn, origin string, err *Error) {
	if warned.Now(time.Minute) {
		h.log.Warn("refused a browser's request: "+err.Message, "code", err.Code, "host", clip(r.Host), "origin", clip(origin), "path", clip(r.URL.Path), "remote", r.RemoteAddr)
	}
	h.refuse(w, r, err)
}

// clip bounds what a client writes into the log.
func clip(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
