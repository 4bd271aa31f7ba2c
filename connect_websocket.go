package channels

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/channels-go/channels/internal/fanout"
)

// paramLines asks, as lines=many, for WebSocket messages of several lines where several
// replies wait. SDKs take these apart, but not every program does.
const paramLines = "lines"

const pathConnect = "/connection/websocket"

// The subprotocols that SDKs ask for. One that asks for none speaks JSON.
const (
	subprotocolProtobuf = "centrifuge-protobuf"
	subprotocolJSON     = "centrifuge-json"
)

// serveConnect is GET /connection/websocket: the client protocol over a WebSocket.
func (h *Hub) serveConnect(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	if !isUpgrade(r) {
		return plainConnect(w, r)
	}
	if err := checkHandshake(w, r); err != nil {
		return err
	}
	c := &conn{}
	c.info.Transport = transportWebSocket
	known, err := h.arrives(r, &c.info)
	if err != nil {
		return err
	}
	defer h.fan.Conns.Leave()
	c.Socket.Init(h.fan)
	c.Format = fanout.ClientJSON
	if wantsProtobuf(r) {
		c.Format = fanout.ClientProtobuf
	}
	c.Joined = r.URL.RawQuery != "" && wantsLines(r)
	c.init(h, &c.Socket.Outbox, "")
	c.beginSession()
	c.session.known = known
	h.clients.expect(&c.client) // from here on the hub may end it
	h.clients.await(&c.client)
	c.endIfClosing()
	early, err := h.upgrade(w, r, c)
	if err != nil {
		c.Abandon(err)
		c.gone(err)
		return err
	}
	c.start(early)
	return nil
}

// wantsLines is not inlined: see readChannelQuery.
//
//go:noinline
func wantsLines(r *http.Request) bool { return r.URL.Query().Get(paramLines) == "many" }

// wantsProtobuf reports whether the client asks for Protobuf, by a subprotocol or in
// the query.
func wantsProtobuf(r *http.Request) bool {
	if r.URL.RawQuery != "" && strings.Contains(r.URL.RawQuery, "cf_protocol=protobuf") {
		return true
	}
	offered := r.Header["Sec-Websocket-Protocol"]
	return offered != nil && slices.ContainsFunc(listed(offered), func(p string) bool { return strings.EqualFold(p, subprotocolProtobuf) })
}

// plainConnect answers a client that asks for the door of the client protocol as if it
// were a page.
func plainConnect(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor < 2 {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
	}
	return errUpgrade.saying("this is a WebSocket (Upgrade: websocket, over HTTP/1.1) for clients of the client protocol; this was a plain GET over %s", r.Proto)
}
