package channels

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/channels-go/channels/internal/doors"
	origins "github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/sparingly"
)

// admits decides whether to serve a request, by the host that it names, the page that
// it comes from, and whether it lacks a token. It sets the headers of CORS, even on a
// refusal, so that a script of an allowed page can read the reason. e is nil if there is
// no such endpoint.
func (h *Hub) admits(w http.ResponseWriter, r *http.Request, e *endpoint) error {
	answers := len(h.opts.Hosts) == 0 || origins.Answers(h.opts.Hosts, r.Host)
	origin, ok := h.originAllowed(r, e, answers)
	h.answerCORS(w, r, e, origin, ok)
	switch {
	case !answers:
		return h.outsider(r, &h.warn.host, r.Host, origin,
			errBadHost.saying("this server does not answer to the host %.200q; Options.Hosts (in example/server: -host) names those that it answers to", r.Host))
	case !ok && e != nil && !e.public:
		return h.foreign(r, origin)
	case tokenDue(r.Context()) && (h.opts.Authenticate == nil || !doors.Open(r.URL.EscapedPath())):
		return errNoToken
	}
	return nil
}

// originAllowed decides by what a browser says about the page that a request
// comes from. Programs that are not browsers say nothing, and pass.
func (h *Hub) originAllowed(r *http.Request, e *endpoint, answers bool) (origin string, ok bool) {
	origin = r.Header.Get("Origin")
	// A page cannot set Sec-Fetch-Site, and it is right even if a proxy has
	// rewritten the Host.
	site := r.Header.Get("Sec-Fetch-Site")
	if site == "same-origin" || origin == "" && (site == "" || site == "none") {
		return origin, answers
	}
	if origin == "" {
		// A cross-site GET without CORS, as by a link or an image. The page
		// cannot read the answer, but a stream would make the visitor a member
		// of the channel.
		return "", e != nil && e.plain && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	// If the browser says that it is another site, the same host is a page
	// without TLS.
	if answers && site == "" && origins.SameHost(origin, r.Host, r.TLS != nil) {
		return origin, true
	}
	return origin, slices.ContainsFunc(h.opts.AllowedOrigins, func(p string) bool { return origins.Match(p, origin) })
}

// checkReferer checks the Referer of a GET for an event stream. Over plain HTTP,
// browsers send Sec-Fetch-Site to localhost only, and nothing else says which page
// asks. A page that hides its Referer cannot be told from one of our own. It
// cannot read the stream, but its visitor is a member for a moment.
func (h *Hub) checkReferer(r *http.Request) error {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return nil // originAllowed has decided
	}
	u, err := url.Parse(r.Referer())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil
	}
	as := *r
	as.Header = http.Header{"Origin": {u.Scheme + "://" + u.Host}}
	if _, ok := h.originAllowed(&as, nil, true); !ok {
		return h.foreign(r, as.Header.Get("Origin"))
	}
	return nil
}

// allowedHeaders are the headers that the hub itself reads.
const allowedHeaders = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"

// answerCORS sets the headers that let a page's script read the answer, whatever
// the answer will be.
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
	// With "*", scripts of any website would act with their visitors' cookies. So
	// they would with "null", since any website can make a frame whose origin it is.
	if origin != "null" && !slices.Contains(h.opts.AllowedOrigins, "*") {
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
	// A page that may send Authorization may send what its tools add, too.
	allow := allowedHeaders
	if asked, ok := origins.Requested(r.Header); ok {
		allow += ", " + asked
		head.Add("Vary", "Access-Control-Request-Headers")
	}
	head.Set("Access-Control-Allow-Headers", allow)
}

// foreign returns why a page of an origin is refused.
func (h *Hub) foreign(r *http.Request, origin string) error {
	return h.outsider(r, &h.warn.origin, origin, origin,
		errBadOrigin.saying("the origin %.200q is not allowed here: it is not that of the host %.200q, and Options.AllowedOrigins (in example/server: -origin) does not list it; a proxy has to pass the Host on", origin, r.Host))
}

// outsider returns why a request is refused for its host or its origin, which is whose.
// Browsers do not show the reason, so it is logged for the operator, at most once a
// minute for each.
func (h *Hub) outsider(r *http.Request, warned *sparingly.Turns, whose, origin string, err *Error) error {
	if warned.Now(clip(whose), time.Minute) {
		h.log.Warn("refused a browser's request: "+err.Message, "code", err.Code, "host", clip(r.Host), "origin", clip(origin), "path", clip(r.URL.Path), "remote", r.RemoteAddr)
	}
	return err
}

// clip shortens what a client sent, for the log.
func clip(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
