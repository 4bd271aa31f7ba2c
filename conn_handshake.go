package channels

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// A hijacker finds the http.Hijacker of a request.
type hijacker struct {
	http.ResponseWriter
	failed http.ResponseWriter // the last one whose Hijack failed
}

// hijack asks the writers from the outermost to the innermost, since a wrapper may
// have a Hijack that has nothing to call.
func (u *hijacker) hijack() (nc net.Conn, rw *bufio.ReadWriter, err error) {
	err = http.ErrNotSupported
	for w := u.ResponseWriter; w != nil; w = unwrap(w) {
		if hj, ok := w.(http.Hijacker); ok {
			if nc, rw, err = hj.Hijack(); err == nil {
				return nc, rw, nil
			}
			u.failed = w
		}
	}
	return nil, nil, err
}

// whyNot says whose fault it is that err came of hijack.
func (u *hijacker) whyNot(err error) error {
	if inner := innermost(u.ResponseWriter); u.failed != inner {
		return errNotHijackable.saying(wrapped, inner, "Hijack", "WebSocket").because(err)
	}
	return errNotHijackable.saying("the http.ResponseWriter of this server, a %T, has a Hijack method that fails, so no WebSocket can be opened; "+
		"give that type a method Unwrap() http.ResponseWriter in place of its Hijack, or mount the hub outside of that middleware", u.failed).because(err)
}

// upgrade makes a WebSocket of the request: it takes the socket over from net/http, whose
// buffers are freed, and answers the handshake. If it fails, nothing has been written yet.
// After errGone nothing can be. early is what the client has sent already.
//
// The answer is written to the socket and not through the ResponseWriters of
// middleware. Some hold it back until the handler returns (gin's, gzip), and if
// Hijack failed after it, nobody could be told.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request, c *conn) (early []byte, err error) {
	// A middleware's Hijack may panic, as gin's does if the writer below has none.
	defer caught(h.log, "the upgrade", "", &err)
	protocols := channelProtocols
	if c.session != nil {
		protocols = sessionProtocols
	} else if h.opts.CompressBytes >= 0 && offersDeflate(r) {
		c.Format = c.Format.Deflated()
	}
	u := hijacker{ResponseWriter: w}
	nc, rw, err := u.hijack()
	if err != nil {
		return nil, u.whyNot(err)
	}
	if err := c.open(nc, w, r, chosen(r, protocols)); err != nil {
		return nil, errGone
	}
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n) // it is buffered
		early = bytes.Clone(b)
		c.received.bytes.Add(int64(n))
	}
	return early, nil
}

// answers are buffers for the answers to handshakes.
var answers = sync.Pool{New: func() any { return new([512]byte) }}

// open answers the handshake.
func (c *conn) open(nc net.Conn, w http.ResponseWriter, r *http.Request, protocol string) error {
	room := answers.Get().(*[512]byte)
	defer answers.Put(room)
	return c.Open(nc, appendOthers(appendSwitch(room[:0], r, protocol, c.Format.Deflates()), w.Header()))
}

// appendSwitch appends the answer to a handshake that checkHandshake has checked (RFC
// 6455 section 4.2.2), up to the hub's own headers.
func appendSwitch(b []byte, r *http.Request, protocol string, deflate bool) []byte {
	const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var key [64]byte
	accept := sha1.Sum(append(append(key[:0], strings.TrimSpace(first(r.Header["Sec-Websocket-Key"]))...), magic...))
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, accept[:])
	if protocol != "" {
		b = append(append(b, "\r\nSec-WebSocket-Protocol: "...), protocol...)
	}
	if deflate {
		b = append(b, "\r\nSec-WebSocket-Extensions: "+deflateWithout...)
	}
	return append(b, "\r\n"...)
}

// appendOthers appends the headers that middleware has set, and the end of the answer.
func appendOthers(b []byte, head http.Header) []byte {
	if len(head) > 0 {
		var others bytes.Buffer
		head.WriteSubset(&others, ofHandshake)
		b = append(b, others.Bytes()...)
	}
	return append(b, "\r\n"...)
}

// ofHandshake are the headers that belong to the handshake alone.
var ofHandshake = map[string]bool{
	"Connection": true, "Upgrade": true, "Sec-Websocket-Accept": true, "Sec-Websocket-Protocol": true, "Sec-Websocket-Extensions": true,
}

// deflateWithout is permessage-deflate as the hub speaks it: each message is compressed
// by itself (RFC 7692 section 7.1.1), so that one compressed message serves all
// subscribers, and none of them keeps a window.
const deflateWithout = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"

// offersDeflate reports whether a client offers permessage-deflate in a way that the hub
// can accept.
func offersDeflate(r *http.Request) bool {
	offers := r.Header["Sec-Websocket-Extensions"]
	return offers != nil && slices.ContainsFunc(listed(offers), acceptableDeflate)
}

// acceptableDeflate judges one offer (RFC 7692 section 7.1). The hub may leave out what
// the client asks of itself, but not what it asks of the hub: a smaller window.
func acceptableDeflate(offer string) bool {
	name, params, more := strings.Cut(offer, ";")
	if strings.TrimSpace(name) != "permessage-deflate" {
		return false
	}
	for more {
		var param string
		param, params, more = strings.Cut(params, ";")
		switch param = strings.TrimSpace(param); {
		case param == "client_no_context_takeover", param == "server_no_context_takeover",
			param == "client_max_window_bits", param == "server_max_window_bits=15",
			strings.HasPrefix(param, "client_max_window_bits="):
		default:
			return false
		}
	}
	return true
}

// errGone says that the connection is lost, so that no answer can be sent.
var errGone = errors.New("channels: the connection is lost")

// chosen returns the first of our subprotocols that the client offers, as the client
// spells it, which browsers compare; or nothing.
func chosen(r *http.Request, ours []string) string {
	header := r.Header["Sec-Websocket-Protocol"]
	if header == nil {
		return ""
	}
	offered := listed(header)
	for _, own := range ours {
		for _, part := range offered {
			if strings.EqualFold(part, own) {
				return part
			}
		}
	}
	return ""
}

// checkHandshake checks a request for a WebSocket (RFC 6455 section 4.2.1).
func checkHandshake(w http.ResponseWriter, r *http.Request) error {
	if !r.ProtoAtLeast(1, 1) {
		return errBadHandshake.saying("a WebSocket needs HTTP/1.1; this request is %.20q", r.Proto)
	}
	if v := first(r.Header["Sec-Websocket-Version"]); v != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13") // RFC 6455 section 4.4
		return errBadHandshake.saying("Sec-WebSocket-Version is %.20q; it must be 13", v)
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return errBadHandshake.saying("there are %d Sec-WebSocket-Key headers; there must be one", len(keys))
	}
	if k := strings.TrimSpace(keys[0]); !isKey(k) {
		return errBadHandshake.saying("Sec-WebSocket-Key is %.40q; it must be 16 bytes in base64", k)
	}
	return nil
}

// isKey reports whether a Sec-WebSocket-Key is 16 bytes in base64.
func isKey(key string) bool {
	var encoded, k [24]byte
	if len(key) != len(encoded) {
		return false
	}
	copy(encoded[:], key)
	n, err := base64.StdEncoding.Decode(k[:], encoded[:])
	return err == nil && n == 16
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// subprotocol is what the server chooses if a client offers it. A browser's
// script can send a token with a WebSocket only as one more subprotocol, and the
// browser hangs up on a server that chooses none of those that were offered.
const subprotocol = "channels"

// What the doors choose from, the first first.
var (
	channelProtocols = []string{subprotocol}
	sessionProtocols = []string{subprotocolProtobuf, subprotocolJSON, subprotocol}
)
