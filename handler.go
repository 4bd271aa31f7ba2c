package channels

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/unread"
)

// serve routes a request. It does so itself, since it tells more than a
// http.ServeMux: each error is JSON with a code, each 405 has its Allow.
//
// The path is split before it is unescaped: a name with %2F in it is one
// wrong name, not two parts of the path. One slash at the end makes no
// difference, whatever the route.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if n := len(parts) - 1; n > 0 && parts[n] == "" {
		parts = parts[:n]
	}
	name := ""
	route := parts[0]
	switch {
	case len(parts) == 2 && parts[0] == "channel":
		name, route = parts[1], "channel/{name}"
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
	end, ok := endpoints[route]
	if !ok {
		if h.admits(w, r, nil) {
			h.refuse(w, r, notFound(r.URL.Path))
		}
		return
	}
	if r.Method == http.MethodGet && end.method == r.Method && !end.plain && r.ContentLength != 0 {
		// What is sent as a body would be read as a WebSocket's frames, past
		// all that stands in front and takes it for a body.
		h.refuse(w, r, errBadHandshake.saying("this request has a body; a GET that opens a WebSocket or a stream of events has none"))
		return
	}
	if r.Method != http.MethodPost { // no other one's body is read
		unread.Leave(w, r)
	}
	if !h.admits(w, r, &end) {
		return
	}
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", end.allow())
		boundAnswer(w, refusalTimeout)
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodHead && end.method == http.MethodGet && end.plain:
	case r.Method == http.MethodConnect && route == "channel/{name}":
		h.refuse(w, r, errUpgrade.saying("WebSocket over HTTP/2 is not served; open it over HTTP/1.1"))
		return
	case r.Method != end.method:
		w.Header().Set("Allow", end.allow())
		h.refuse(w, r, wrongMethod(r.Method, route, end))
		return
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		h.refuse(w, r, ErrBadChannel.saying("the channel name in the path is not percent-encoded correctly"))
		return
	}
	err = h.guard("the handler of "+route, func() error { return end.serve(h, w, r, name) })
	if err != nil {
		h.refuse(w, r, err)
	}
}

// An endpoint is one row of the table of endpoints. An error that serve
// returns is the answer; then nothing has been written yet.
type endpoint struct {
	method string
	plain  bool // a GET without side effects or streams, so HEAD works too
	serve  func(h *Hub, w http.ResponseWriter, r *http.Request, name string) error
}

var endpoints map[string]endpoint

func init() { // not a literal, which would refer to itself through the handlers
	endpoints = map[string]endpoint{
		"channel/{name}":             {http.MethodGet, false, (*Hub).serveChannel},
		"v1/publish":                 {http.MethodPost, false, (*Hub).servePublishMany},
		"v1/channel":                 {http.MethodGet, true, (*Hub).serveList},
		"v1/channel/{name}":          {http.MethodGet, true, (*Hub).serveOne},
		"v1/channel/{name}/publish":  {http.MethodPost, false, (*Hub).servePublish},
		"v1/channel/{name}/history":  {http.MethodGet, true, (*Hub).serveHistory},
		"v1/channel/{name}/presence": {http.MethodGet, true, (*Hub).servePresence},
		"v1/nodes":                   {http.MethodGet, true, (*Hub).serveNodes},
		"healthz":                    {http.MethodGet, true, (*Hub).serveHealth},
		"readyz":                     {http.MethodGet, true, (*Hub).serveReady},
	}
}

func (e endpoint) allow() string {
	switch {
	case e.plain:
		return "GET, HEAD, OPTIONS"
	default:
		return e.method + ", OPTIONS"
	}
}

// wrongMethod says which methods an endpoint has, and where one publishes to who
// tries to do so at the channel itself.
func wrongMethod(method, route string, end endpoint) *Error {
	allowed := strings.Replace(end.allow(), ", OPTIONS", " and OPTIONS", 1)
	hint := ""
	if method == http.MethodPost && (route == "channel/{name}" || route == "v1/channel/{name}") {
		hint = "; to publish, POST to /v1/channel/NAME/publish"
	}
	return errBadMethod.saying("%.40s is not allowed here; %s are%s", method, allowed, hint)
}

// serveChannel is GET /channel/{name}/: a WebSocket, or server-sent events.
func (h *Hub) serveChannel(w http.ResponseWriter, r *http.Request, name string) error {
	stream := wantsStream(r)
	upgrade := isUpgrade(r)
	if err := CheckName(name); err != nil {
		return err
	}
	if !upgrade && !stream {
		// A script that was refused asks so why.
		if _, err := channelQueryOf(r, false); err != nil {
			return err
		}
		if err := h.authorizeHTTP(r, ActionSubscribe, name); err != nil {
			return err
		}
		return plainGet(w, r)
	}
	if upgrade {
		if err := checkHandshake(w, r); err != nil {
			return err // before anybody sees a member come and go
		}
	}
	q, err := channelQueryOf(r, stream && !upgrade)
	if err != nil {
		return err
	}
	if !upgrade && !h.refererAllowed(r) {
		return errBadOrigin.saying("a page at %.200q has asked for this stream, which is not allowed; Options.AllowedOrigins lists the origins of those that may, besides the server's own", r.Referer())
	}
	if !h.conns.enter() {
		return ErrClosed
	}
	leave := sync.OnceFunc(h.conns.leave)
	defer leave()
	if h.draining.Load() {
		return ErrDraining
	}
	if err := h.admitConnection(r.RemoteAddr); err != nil {
		return err // before the app's code has work with it
	}
	id, _ := IdentityFrom(r.Context())
	info := Client{ID: h.clients.newID(), Identity: id, RemoteAddr: r.RemoteAddr, Transport: transportWebSocket, Connected: time.Now()}
	if !upgrade {
		info.Transport = transportSSE
	}
	if upgrade {
		return h.serveWebSocket(w, r, name, info, q)
	}
	return h.serveStream(w, r, name, info, q, leave)
}

// plainGet answers who asks for a channel as for a page.
func plainGet(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor >= 2 {
		return errUpgrade.saying("this channel is a WebSocket, which needs HTTP/1.1 (with TLS: ALPN http/1.1), or server-sent events, which need Accept: text/event-stream; this was a plain GET over %s", r.Proto)
	}
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Connection", "Upgrade")
	return errUpgrade.saying("this channel is a WebSocket (Upgrade: websocket) or a stream of server-sent events (Accept: text/event-stream); this was a plain GET")
}

// serveWebSocket subscribes, upgrades, and returns: the connection goes on
// without the handler, whose goroutine and buffers are freed. An error means
// that there is no connection.
func (h *Hub) serveWebSocket(w http.ResponseWriter, r *http.Request, name string, info Client, q channelQuery) error {
	c := h.newConn(name, info)
	c.heartbeat = q.heartbeat
	// Subscribed before the handshake ends: once the client knows that it is
	// connected, it misses nothing.
	if err := c.letIn(r.Context(), q.since); err != nil {
		if errors.Is(err, ErrClosed) {
			w.Header().Set("Connection", "close") // this process is about to end
		}
		return err
	}
	// A Hijack of the app's may panic, as gin's does where it has none below.
	err := h.guard("the upgrade", func() error {
		c.admit()
		return h.upgrade(w, r, c)
	})
	if err != nil {
		c.leave()
		c.abandon(err)
		c.gone(err)
		return err
	}
	c.welcome(r.Context())
	c.start()
	return nil
}

// wantsStream tells whether the client takes server-sent events and says so:
// wildcards are for a page.
func wantsStream(r *http.Request) bool { return accepts(r.Header.Values("Accept"), typeStream) }

// errGone says that the connection is lost, so that there is nobody to answer.
var errGone = errors.New("channels: the connection is lost")

// channelQuery is what a client asks of a channel.
type channelQuery struct {
	since     *Position // from where it goes on; nil is from now on
	heartbeat bool      // it wants to see heartbeats
}

// channelQueryOf reads what a client asks. The Last-Event-ID is the browser's
// own memory, and newer than since: one that makes no sense is a reset and not
// an error, at which the browser would give up for good.
func channelQueryOf(r *http.Request, stream bool) (q channelQuery, err error) {
	last := ""
	if stream {
		last = r.Header.Get("Last-Event-ID")
	}
	if r.URL.RawQuery != "" {
		if q, err = readChannelQuery(r, last == ""); err != nil {
			return q, err
		}
	}
	if last != "" {
		p, err := ParsePosition(last)
		if err != nil {
			p = Position{Epoch: "?"} // no log's epoch
		}
		q.since = &p
	}
	return q, nil
}

// readChannelQuery is apart because of the map's kilobyte on the stack, for which
// the goroutine of every connection would have to grow its own.
//
//go:noinline
func readChannelQuery(r *http.Request, since bool) (q channelQuery, err error) {
	v, err := queryOf(r, "since", "heartbeat")
	if err != nil {
		return q, err
	}
	switch v.Get("heartbeat") {
	case "":
	case "event":
		q.heartbeat = true
	default:
		return q, ErrBadQuery.saying("heartbeat is %.40q; it may be event, or be left out", v.Get("heartbeat"))
	}
	if s := v.Get("since"); s != "" && since {
		p, err := ParsePosition(s)
		if err != nil {
			return q, err
		}
		q.since = &p
	}
	return q, nil
}

// headerHas returns whether a comma-separated header has a token.
func headerHas(h http.Header, key, token string) bool {
	for _, v := range h.Values(key) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// refuse answers with an error as JSON.
func (h *Hub) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if err == errGone {
		return
	}
	e := visible(err, ErrInternal)
	if e.status() >= 500 && e.cause != nil {
		level := slog.LevelWarn // it will pass by itself
		if e.status() == http.StatusInternalServerError {
			level = slog.LevelError
		}
		h.log.Log(r.Context(), level, "refused", "path", r.URL.Path, "err", e)
	}
	WriteError(w, r, e)
}

// WriteError answers a request as the hub does where it refuses one: with
// {"status":"fail","error":{"code","message"}} and the error's HTTP status. It
// is for the app's own middleware, so that clients know one form of errors.
// An error that is not, and does not wrap, an [*Error] becomes "internal".
//
// The statuses 503 and 429 will pass by themselves: they get a Retry-After of
// 2 to 5 s, at random, where none is set. Who accepts text/event-stream gets
// them as a stream that ends at once and asks to come back, since an EventSource
// gives up after an error.
//
// A browser tells a script nothing of a WebSocket that was refused. To the
// pages that may know, WriteError opens one, says there what is wrong, and
// closes it with 3000 for the status 401, 1013 for what passes, 1011 for other
// 5xx, and 3003 for all else.
//
// The status of such a stream is 200, and of such a WebSocket 101. For its log, a
// middleware's ResponseWriter may have a method Refused(status int, code string),
// which is told of what it was in truth.
//
// Where the request's body was not read, the answer is sent at once, and the
// connection closed: a client that never sends it would never get the answer.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := visible(err, ErrInternal)
	for next := w; next != nil; next = unwrap(next) {
		if n, ok := next.(interface{ Refused(status int, code string) }); ok {
			n.Refused(e.status(), e.Code)
		}
	}
	unread.Leave(w, r)
	boundAnswer(w, refusalTimeout)
	passes := e.passes()
	if passes && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", retryAfter())
	}
	switch {
	case isUpgrade(r):
		if refuseWebSocket(w, r, e) {
			return
		}
	case passes && r.Method == http.MethodGet && wantsStream(r):
		refuseStream(w, e)
		return
	}
	status, b := marshal(e.status(), failure{"fail", errorBody{e.Code, e.Message}})
	sendJSON(w, status, b, refusalTimeout, boundAnswer)
}

type failure struct {
	Status string    `json:"status"`
	Error  errorBody `json:"error"`
}

type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (h *Hub) serveHealth(w http.ResponseWriter, r *http.Request, _ string) error {
	h.writeJSON(w, r, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// serveReady says whether a load balancer should send new clients here. Where
// the Store fails all replicas alike, clients are no better off elsewhere, and
// channels without history need none: it then says so only where no other
// replica is heard, which may be this one's own fault. Where all replicas are
// cut off from each other, it is the same: each serves its own.
func (h *Hub) serveReady(w http.ResponseWriter, r *http.Request, _ string) error {
	others, served := h.around.company()
	switch {
	case h.calls.closed():
		return ErrClosed
	case h.leaving.Load():
		return ErrDraining
	case h.storeBad.Load() && others == 0: // else it has until it is red: others need as long to notice
		return ErrStoreUnavailable
	case !h.reported.Load(): // within the first second, nobody knows yet
		if err := h.flush(r.Context(), true); err != nil {
			return err
		}
		h.reported.Store(true)
	}
	_, err := h.verdict()
	switch {
	case errors.Is(err, ErrStoreUnavailable) && others > 0 && served == 0:
	case errors.Is(err, ErrMeshUnavailable) && h.vitals.isCutOff() && !h.around.joined():
	case err != nil:
		return err
	}
	h.writeJSON(w, r, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}
