package channels

import (
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/fanout"
)

// serveChannel is GET /channel/{name}/: a WebSocket, or server-sent events.
func (h *Hub) serveChannel(w http.ResponseWriter, r *http.Request, name string, _ url.Values) error {
	if isUpgrade(r) {
		return h.serveWebSocket(w, r, name)
	}
	return h.serveWithout(w, r, name)
}

// serveWithout answers a request for a channel that is no WebSocket's. It is not inlined:
// the goroutine of each WebSocket would have its variables on the stack.
//
//go:noinline
func (h *Hub) serveWithout(w http.ResponseWriter, r *http.Request, name string) error {
	stream := wantsStream(r)
	q, err := channelQueryOf(r, stream)
	if err != nil {
		return err
	}
	if !stream {
		// A script whose WebSocket was refused learns the reason this way.
		if err := h.authorizeHTTP(r, ActionSubscribe, name); err != nil {
			return err
		}
		return plainGet(w, r)
	}
	if err := h.checkReferer(r); err != nil {
		return err
	}
	info := Client{Transport: transportSSE}
	if _, err := h.arrives(r, &info); err != nil {
		return err
	}
	leave := sync.OnceFunc(h.fan.Conns.Leave)
	defer leave()
	return h.serveStream(w, r, name, info, q, leave)
}

// arrives counts one more connection, and sets what is known of it. Refused here, a
// connection costs the app's code nothing. After nil, the caller leaves Engine.Conns once
// the connection has a goroutine of its own, or is over.
func (h *Hub) arrives(r *http.Request, info *Client) (known bool, err error) {
	if !h.fan.Conns.Enter() {
		return false, ErrClosed
	}
	switch {
	case h.refusing.Load():
		err = ErrDraining
	case h.fan.Queued() >= int64(h.opts.MaxQueuedBytes):
		err = errOverloaded
	default:
		err = h.admission.admit(r.RemoteAddr)
	}
	if err != nil {
		h.fan.Conns.Leave()
		return false, err
	}
	info.Identity, known = IdentityFrom(r.Context())
	info.ID, info.RemoteAddr, info.Connected = h.clients.newID(), r.RemoteAddr, time.Now()
	return known, nil
}

// plainGet answers a client that asks for a channel as if it were a page.
func plainGet(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor >= 2 {
		return errUpgrade.saying("this channel is a WebSocket, which needs HTTP/1.1 (with TLS: ALPN http/1.1), or server-sent events, which need Accept: text/event-stream; this was a plain GET over %s", r.Proto)
	}
	w.Header().Set("Upgrade", "websocket")
	w.Header().Set("Connection", "Upgrade")
	return errUpgrade.saying("this channel is a WebSocket (Upgrade: websocket) or a stream of server-sent events (Accept: text/event-stream); this was a plain GET")
}

// channelQuery is what a client asks for when it opens a channel.
type channelQuery struct {
	start                   // a position to resume from, or how many of the newest messages; from now on if there is neither
	heartbeat bool          // it wants to see heartbeats
	position  bool          // it wants to be told where it begins
	as        fanout.Format // of an event stream
}

const (
	formatEvent = "event" // events are named after their headers
	formatBody  = "body"  // messages are their bodies alone
)

// channelQueryOf reads the query of a request for a channel. Last-Event-ID is
// the browser's own memory, and newer than since and last. If it is not valid, the
// client gets a reset, and not an error, after which a browser would never reconnect.
func channelQueryOf(r *http.Request, stream bool) (q channelQuery, err error) {
	id := ""
	q.as = fanout.SSE
	if stream {
		id = r.Header.Get("Last-Event-ID")
	}
	if r.URL.RawQuery != "" {
		if q, err = readChannelQuery(r, id == ""); err != nil {
			return q, err
		}
	}
	if id != "" {
		p, err := ParsePosition(id)
		if err != nil {
			p = Position{Epoch: "?"} // an epoch that no log has
		}
		q.start = start{since: &p}
	}
	return q, nil
}

// readChannelQuery reads since and last only for a client that subscribes. It is not
// inlined: its map takes a kilobyte of stack, and every connection's goroutine would
// have to grow its stack for it.
//
//go:noinline
func readChannelQuery(r *http.Request, begins bool) (q channelQuery, err error) {
	// Datastar adds its own parameter to each GET: the page's signals.
	v, err := queryOf(r, "since", "last", "heartbeat", "position", "format", "datastar")
	if err != nil {
		return q, err
	}
	if err := q.readForm(v); err != nil || !begins {
		return q, err
	}
	if s := v.Get("since"); s != "" {
		p, err := ParsePosition(s)
		if err != nil {
			return q, err
		}
		q.since = &p
	}
	if q.last, err = lastOf(v); err == nil && q.last > 0 && q.since != nil {
		err = errLastSince
	}
	return q, err
}

// readForm reads how what comes is to be sent.
func (q *channelQuery) readForm(v url.Values) error {
	switch v.Get("format") {
	case "":
		q.as = fanout.SSE
	case formatEvent:
		q.as = fanout.Named
	case formatBody:
		q.as = fanout.BodyEvents
	default:
		return ErrBadQuery.saying("format is %.40q; it must be event or body, or be left out", v.Get("format"))
	}
	for name, wanted := range map[string]*bool{"heartbeat": &q.heartbeat, "position": &q.position} {
		switch v.Get(name) {
		case "":
		case "event":
			*wanted = true
		default:
			return ErrBadQuery.saying("%s is %.40q; it must be event, or be left out", name, v.Get(name))
		}
	}
	return nil
}

// lastOf reads with how many of the newest messages a client wants to begin.
func lastOf(v url.Values) (n int, err error) {
	if s := v.Get("last"); s != "" {
		if n, err = strconv.Atoi(s); err != nil || n < 0 || n > maxLast {
			return 0, ErrBadQuery.saying("last is %.40q; it must be a whole number, 0 to %d", s, maxLast)
		}
	}
	return n, nil
}
