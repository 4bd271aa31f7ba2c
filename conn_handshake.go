package channels

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"maps"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// The library's buffers are small, because each idle connection has them. The
// write buffer holds the longest control frame (RFC 6455 section 5.5). The read
// buffer holds hardly more than a frame's header, since the payload goes past it.
const (
	readBufferBytes  = 16
	writeBufferBytes = 128
)

// upgradeWriter is the ResponseWriter that the WebSocket library gets.
type upgradeWriter struct {
	http.ResponseWriter
	conn     *conn
	hijacked bool
	failed   http.ResponseWriter // the last one whose Hijack failed
	status   int                 // what the library refused with, or 0
	said     []byte              // and why, as plain text
}

// WriteHeader keeps the status back: a refusal is sent as JSON later, and the 101
// in Hijack.
func (u *upgradeWriter) WriteHeader(status int) {
	if status >= 400 {
		u.status = status
	}
}

func (u *upgradeWriter) Write(b []byte) (int, error) {
	u.said = append(u.said, b...)
	return len(b), nil
}

// Hijack takes the socket over from net/http, with small buffers in place of
// net/http's, which are freed, and answers the handshake.
//
// The answer is written to the socket and not through the ResponseWriters of
// middleware. Some hold it back until the handler returns (gin's, gzip), and if
// Hijack failed after it, nobody could be told.
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := u.hijack()
	if err != nil {
		return nil, nil, err
	}
	u.hijacked = true
	c := u.conn
	var head bytes.Buffer
	head.Grow(256)
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	u.Header().Write(&head)
	head.WriteString("\r\n")
	if err := c.Open(nc, head.Bytes()); err != nil {
		return nil, nil, err
	}
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n) // it is buffered
		c.early = append([]byte(nil), b...)
		c.received.bytes.Add(int64(n))
	}
	w := (*wire)(c)
	c.br = bufio.NewReaderSize(w, readBufferBytes)
	return w, bufio.NewReadWriter(c.br, bufio.NewWriterSize(w, writeBufferBytes)), nil
}

// hijack asks the writers from the outermost to the innermost, since a wrapper may
// have a Hijack that has nothing to call.
func (u *upgradeWriter) hijack() (nc net.Conn, rw *bufio.ReadWriter, err error) {
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

// upgrade makes a WebSocket of the request. If it fails, nothing has been written
// yet. After errGone nothing can be.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request, c *conn) error {
	u := &upgradeWriter{ResponseWriter: w, conn: c}
	mode, protocols := websocket.CompressionNoContextTakeover, channelProtocols
	if c.session != nil {
		mode, protocols = websocket.CompressionDisabled, sessionProtocols
	}
	if h.opts.CompressBytes < 0 {
		mode = websocket.CompressionDisabled
	}
	ws, err := websocket.Accept(u, withoutOtherProtocols(r, protocols), &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the handler has checked the origin
		CompressionMode:    mode,
		Subprotocols:       protocols,
		OnPingReceived:     c.pong,
	})
	switch {
	case err != nil && u.status != 0 && u.status < 500:
		return errBadHandshake.saying("%s", strings.TrimSpace(string(u.said)))
	case err != nil && u.hijacked:
		if nc := c.Conn(); nc != nil {
			nc.Close()
		}
		return errGone
	case err != nil:
		for _, k := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Extensions"} {
			w.Header().Del(k) // it is an ordinary answer again
		}
		if inner := innermost(w); u.failed != inner {
			return errNotHijackable.saying(wrapped, inner, "Hijack", "WebSocket").because(err)
		}
		return errNotHijackable.saying("the http.ResponseWriter of this server, a %T, has a Hijack method that fails, so no WebSocket can be opened; "+
			"give that type a method Unwrap() http.ResponseWriter in place of its Hijack, or mount the hub outside of that middleware", u.failed).because(err)
	}
	c.ws = ws
	if strings.Contains(w.Header().Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
		c.Format = c.Format.Deflated()
	}
	return nil
}

// errGone says that the connection is lost, so that no answer can be sent.
var errGone = errors.New("channels: the connection is lost")

// withoutOtherProtocols returns a request that offers only the subprotocol that
// will be chosen, as a copy. The library keeps the chosen one as long as the
// connection, and with it the header that it is a part of, which may be a megabyte.
func withoutOtherProtocols(r *http.Request, ours []string) *http.Request {
	const key = "Sec-Websocket-Protocol"
	if r.Header[key] == nil {
		return r
	}
	c := *r
	c.Header = maps.Clone(r.Header)
	delete(c.Header, key)
	offered := listed(r.Header[key])
	for _, own := range ours {
		for _, part := range offered {
			if strings.EqualFold(part, own) {
				c.Header[key] = []string{strings.Clone(part)} // as the client spells it, which browsers compare
				return &c
			}
		}
	}
	return &c
}

// checkHandshake checks what the library would also refuse, but later (RFC 6455
// section 4.2.1).
func checkHandshake(w http.ResponseWriter, r *http.Request) error {
	if v := r.Header.Get("Sec-WebSocket-Version"); v != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13") // RFC 6455 section 4.4
		return errBadHandshake.saying("Sec-WebSocket-Version is %.20q; it must be 13", v)
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) != 1 {
		return errBadHandshake.saying("there are %d Sec-WebSocket-Key headers; there must be one", len(keys))
	}
	if k, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(k) != 16 {
		return errBadHandshake.saying("Sec-WebSocket-Key is %.40q; it must be 16 bytes in base64", keys[0])
	}
	return nil
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
