package channels

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/channels-go/channels/internal/unread"
)

// A handler is what Hub.Handler returns.
type handler Hub

// ServeHTTP answers a request.
func (a *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := (*Hub)(a)
	if tokenDue(r.Context()) {
		r = withoutIdentity(r)
	}
	h.stats.requests.Add(1)
	if err := h.route(w, r); err != nil {
		h.refuse(w, r, err)
	}
}

// route calls the endpoint that a request names. The goroutine of each connection grows
// its stack to the deepest call that it makes, and to copy the stack costs as much as
// the rest of the hub's part in a handshake. So what finds the way has returned before
// the endpoint is called, and calls on the way to a WebSocket keep little on the stack:
// 4 KiB are enough (bench's row connect).
func (h *Hub) route(w http.ResponseWriter, r *http.Request) error {
	end, route, name, err := h.find(w, r)
	if end == nil {
		return err
	}
	return h.call(w, r, route, end, name)
}

// find returns the endpoint that a request names, or nil if the request is refused or has
// been answered. It does not use an http.ServeMux, so that each error is JSON with a code
// and each 405 has its Allow.
//
// The path is split before it is unescaped: a name with %2F in it is one
// invalid name, not two parts of the path. A slash at the end makes no
// difference.
func (h *Hub) find(w http.ResponseWriter, r *http.Request) (end *endpoint, route, name string, err error) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if n := len(parts) - 1; n > 0 && parts[n] == "" {
		parts = parts[:n]
	}
	route = parts[0]
	switch {
	case len(parts) == 2 && parts[0] == "channel":
		name, route = parts[1], "channel/{name}"
	case len(parts) == 2 && parts[0] == "connection":
		route = "connection/" + parts[1]
	case len(parts) >= 2 && parts[0] == "v1":
		route = "v1/" + parts[1]
		if len(parts) > 2 && parts[1] == "channel" {
			name = parts[2]
			route = strings.Join(append([]string{"v1/channel/{name}"}, parts[3:]...), "/")
		} else if len(parts) > 2 {
			route = ""
		}
	case len(parts) > 1:
		route = ""
	}
	if end = endpoints[route]; end == nil {
		if err := h.admits(w, r, nil); err != nil {
			return nil, "", "", err
		}
		return nil, "", "", notFound(r.URL.Path)
	}
	if r.Method == http.MethodGet && end.takes(r.Method) && !end.plain && r.ContentLength != 0 {
		// The hub would read the body as a WebSocket's frames, while a proxy in
		// front takes it for a body: a way to smuggle messages past the proxy.
		return nil, "", "", errBadHandshake.saying("this request has a body; a GET that opens a WebSocket or an event stream must not have one")
	}
	if r.Method != http.MethodPost { // the body of no other method is read
		unread.Leave(w, r)
	}
	if err := h.admits(w, r, end); err != nil {
		return nil, "", "", err
	}
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", end.allow())
		boundAnswer(w, refusalTimeout)
		w.WriteHeader(http.StatusNoContent)
		return nil, "", "", nil
	case r.Method == http.MethodHead && end.method == http.MethodGet && end.plain:
	case r.Method == http.MethodConnect && route == "channel/{name}":
		return nil, "", "", errUpgrade.saying("WebSocket over HTTP/2 is not served; open it over HTTP/1.1")
	case !end.takes(r.Method):
		w.Header().Set("Allow", end.allow())
		return nil, "", "", wrongMethod(r.Method, route, end)
	}
	return end, route, name, nil
}

// call calls an endpoint, once the name and the query are valid and the client is
// known to be allowed to, as far as the table says what to check.
func (h *Hub) call(w http.ResponseWriter, r *http.Request, route string, end *endpoint, name string) (err error) {
	defer caught(h.log, "the handler of ", route, &err)
	if name, err = url.PathUnescape(name); err != nil {
		return ErrBadChannel.saying("the channel name in the path is not percent-encoded correctly")
	}
	if strings.Contains(route, "{name}") {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	var q url.Values
	if end.query != nil {
		if q, err = queryOf(r, end.query...); err != nil {
			return err
		}
	}
	if end.action != "" {
		if err := h.authorizeHTTP(r, end.action, name); err != nil {
			return err
		}
	}
	return end.serve(h, w, r, name, q)
}

// An endpoint is one row of the table of endpoints. If serve returns an error,
// it has written nothing, and the error is the answer.
type endpoint struct {
	method string   // one, or two as in the header Allow
	plain  bool     // a GET without side effects or streams, so HEAD works too
	public bool     // for pages of any origin: it holds nothing of the app's
	query  []string // the parameters that it takes; nil: serve sees to them
	action Action   // what Authorize is asked; empty: serve sees to that
	serve  func(h *Hub, w http.ResponseWriter, r *http.Request, name string, q url.Values) error
}

var noQuery = []string{}

var endpoints map[string]*endpoint

func init() { // not a literal, which would refer to itself through the handlers
	endpoints = map[string]*endpoint{
		"channel/{name}":       {http.MethodGet, false, false, nil, "", (*Hub).serveChannel},
		"connection/websocket": {http.MethodGet, false, false, nil, "", (*Hub).serveConnect},

		"connection/sse":         {http.MethodGet + ", " + http.MethodPost, false, false, nil, "", (*Hub).serveConnectEvents},
		"connection/http_stream": {http.MethodPost, false, false, nil, "", (*Hub).serveConnectStream},
		"emulation":              {http.MethodPost, false, false, nil, "", (*Hub).serveEmulation},

		"v1/events":  {http.MethodGet, false, false, nil, "", (*Hub).serveEvents},
		"v1/publish": {http.MethodPost, false, false, noQuery, "", (*Hub).servePublishMany},
		"v1/channel": {http.MethodGet, true, false, []string{"prefix", "limit", "cursor"}, ActionList,
			(*Hub).serveList},
		"v1/channel/{name}":         {http.MethodGet, true, false, noQuery, ActionList, (*Hub).serveOne},
		"v1/channel/{name}/publish": {http.MethodPost, false, false, noQuery, "", (*Hub).servePublish},
		"v1/channel/{name}/history": {http.MethodGet, true, false, []string{"limit", "since", "before"}, ActionHistory,
			(*Hub).serveHistory},
		"v1/channel/{name}/presence": {http.MethodGet, true, false, []string{"limit"}, ActionPresence, (*Hub).servePresence},
		"v1/nodes":                   {http.MethodGet, true, false, noQuery, ActionList, (*Hub).serveReplicas},
		"channels.js":                {http.MethodGet, true, true, []string{"v"}, "", (*Hub).serveModule},
		"channels.d.ts":              {http.MethodGet, true, true, noQuery, "", (*Hub).serveTypes},
		"healthz":                    {http.MethodGet, true, false, nil, "", (*Hub).serveHealth},
		"readyz":                     {http.MethodGet, true, false, nil, "", (*Hub).serveReady},
	}
}

// takes reports whether the endpoint has a method.
func (e *endpoint) takes(method string) bool {
	one, other, _ := strings.Cut(e.method, ", ")
	return method == one || method == other
}

func (e *endpoint) allow() string {
	if e.plain {
		return "GET, HEAD, OPTIONS"
	}
	return e.method + ", OPTIONS"
}

// wrongMethod says which methods an endpoint has. To a client that posts to the
// channel itself, it says where to publish.
func wrongMethod(method, route string, end *endpoint) *Error {
	allowed := strings.Replace(end.allow(), ", OPTIONS", " and OPTIONS", 1)
	hint := ""
	if method == http.MethodPost && (route == "channel/{name}" || route == "v1/channel/{name}") {
		hint = "; to publish, POST to /v1/channel/NAME/publish"
	}
	return errBadMethod.saying("%.40s is not allowed here; %s are%s", method, allowed, hint)
}

// served lists the endpoints for clients that asked for something else.
const served = "the hub serves /channel/NAME/, /connection/websocket, /connection/sse and /connection/http_stream with /emulation, /v1/channel, /v1/channel/NAME with /publish, /history and /presence below it, /v1/events, /v1/publish, /v1/nodes, /channels.js, /healthz and /readyz"

// notFound says that nothing is served at a path, and what is served. If one of
// the hub's own paths follows a prefix, the hub is probably mounted below that
// prefix without an http.StripPrefix.
func notFound(path string) *Error {
	mount := ""
	for _, own := range []string{"/channel/", "/connection/", "/v1/", "/emulation", "/channels.js", "/healthz", "/readyz"} {
		prefix, rest, ok := strings.Cut(path, own)
		switch {
		case !ok:
		case prefix == "": // the path only begins like one of the hub's own
			return errNotFound.saying("there is nothing at %.200q; %s", path, served)
		case mount == "" && (strings.HasSuffix(own, "/") || rest == ""):
			mount = prefix
		}
	}
	if mount != "" {
		return errNotFound.saying("there is nothing at %.200q; if the hub is mounted below %.100q, strip that prefix: http.StripPrefix(%.100[2]q, hub.Handler())", path, mount)
	}
	return errNotFound.saying("there is nothing at %.200q; %s", path, served)
}
