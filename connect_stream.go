package channels

import (
	"bytes"
	"context"
	"crypto/rand"
	"mime"
	"net/http"
	"net/url"
	"sync"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/fanout"
)

// Where a network lets no WebSocket through, a client of the client protocol gets
// replies and pushes on a stream, and sends its commands by requests beside it, which
// connect_emulation.go serves. Only the first frame comes with the request for the
// stream. All else is as over a WebSocket.

const (
	pathConnectEvents = "/connection/sse"
	pathConnectLines  = "/connection/http_stream"
)

const (
	typeLines    = "application/x-ndjson"
	typeProtobuf = "application/octet-stream"
)

// paramConnect has the first frame of commands, in a GET.
const paramConnect = "cf_connect"

// serveConnectEvents is GET and POST /connection/sse: the client protocol in JSON, as
// server-sent events.
func (h *Hub) serveConnectEvents(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	if r.Method == http.MethodPost {
		return h.serveSession(w, r, transportSSE, fanout.ClientEvents, nil)
	}
	if err := h.checkReferer(r); err != nil {
		return err
	}
	frame := []byte(r.URL.Query().Get(paramConnect))
	if len(frame) == 0 {
		return ErrBadQuery.saying("this is an event stream for clients of the client protocol; the parameter %s has to have their first frame of commands", paramConnect)
	}
	if !h.onlyBegins(frame) {
		return ErrBadQuery.saying("the parameter %s has a command that is neither connect nor subscribe; send it by a POST", paramConnect)
	}
	return h.serveSession(w, r, transportSSE, fanout.ClientEvents, frame)
}

// onlyBegins reports whether a frame only connects and subscribes. A GET may do no more:
// over plain HTTP, nothing tells one of the app's pages from one of another site that
// hides its Referer, and that must not publish in its visitor's name.
func (h *Hub) onlyBegins(frame []byte) bool {
	for cmd := range clientproto.Commands(frame, clientproto.JSON, h.frameLimits()) {
		if cmd == nil { // broken: the session says so
			return true
		}
		begin := clientproto.Command{ID: cmd.ID, Connect: cmd.Connect, Subscribe: cmd.Subscribe}
		if *cmd != begin {
			return false
		}
	}
	return true
}

// serveConnectStream is POST /connection/http_stream: the client protocol in JSON, a
// line for each reply, or in Protobuf.
func (h *Hub) serveConnectStream(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	as := fanout.ClientLines
	if sendsProtobuf(r) {
		as = fanout.ClientDelimited
	}
	return h.serveSession(w, r, transportLines, as, nil)
}

// sendsProtobuf reports whether the body of a request is Protobuf.
func sendsProtobuf(r *http.Request) bool {
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return t == typeProtobuf
}

// serveSession serves a session over a stream, until either side ends. first is its
// first frame, or nil if the body has it. An error means that nothing was written.
func (h *Hub) serveSession(w http.ResponseWriter, r *http.Request, transport string, as fanout.Format, first []byte) error {
	info := Client{Transport: transport}
	known, err := h.arrives(r, &info)
	if err != nil {
		return err
	}
	leave := sync.OnceFunc(h.fan.Conns.Leave)
	defer leave()
	if first == nil {
		err = h.body(w, r, h.opts.batchBytes(), func(b []byte) error {
			first = bytes.Clone(b)
			return nil
		})
		if err != nil {
			h.admission.dismiss(info.RemoteAddr)
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := newStream(w, cancel)
	defer s.returned()
	s.Init(h.fan, s, as)
	h.initClient(&s.client, &s.Outbox, "", info)
	s.beginSession()
	s.session.known, s.session.key = known, rand.Text()
	s.up = newUpstream(h.opts.batchBytes())
	h.clients.expect(&s.client) // from here on the hub may end it
	h.clients.await(&s.client)
	s.endIfClosing()
	h.streamed.add(s)
	defer h.streamed.remove(s)
	return s.serve(ctx, w, leave, func() { s.receive(first) })
}
