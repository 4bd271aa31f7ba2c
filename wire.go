package channels

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// A wire is the net.Conn that the WebSocket library gets: it reads from the
// socket, but what the library writes (control frames, one to a call, since
// the buffer that it gets is as long as the longest) goes into the outbox, so
// that a stuck client never blocks the reading.
type wire conn

func (w *wire) Read(b []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(b, w.early)
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
			if w.chunk != nil {
				chunks.Put(w.chunk)
				w.chunk = nil
			}
		}
		return n, nil
	}
	if w.readErr != nil {
		return 0, w.readErr
	}
	n, err := w.nc.Read(b)
	if n > 0 {
		w.in.bytes.Add(int64(n))
		w.seen.Store(w.hub.seconds.Load())
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if len(b) > 0 && b[0] == opClose {
		f := &frame{ws: append([]byte(nil), b...), last: true}
		w.end([]*frame{f}, nil, false)
	}
	return len(b), nil
}

// Close is called by the library. The socket stays open until the close frame
// is out (conn.finish), but whoever reads is let go.
func (w *wire) Close() error {
	return w.nc.SetReadDeadline(time.Unix(1, 0))
}

func (w *wire) LocalAddr() net.Addr              { return w.nc.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.nc.RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// The sizes of the library's buffers: small, because each idle connection has
// them. The write buffer holds the longest control frame (RFC 6455 section
// 5.5); the read buffer hardly more than a frame's header, since the payload
// goes past it.
const (
	readBufferBytes  = 16
	writeBufferBytes = 128
)

// upgradeWriter is the ResponseWriter that the WebSocket library gets.
type upgradeWriter struct {
	http.ResponseWriter
	hijacker http.Hijacker
	conn     *conn
	hijacked bool
	status   int    // what the library refused with, or 0
	said     []byte // and why, as plain text
}

// WriteHeader keeps the status back: a refusal is to be sent as JSON, and the
// 101 goes out in Hijack.
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
// middleware: some hold it back until the handler returns (gin's, gzip), and
// a Hijack that fails after it could no longer be told.
func (u *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := u.hijacker.Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.hijacked = true
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	u.Header().Write(&head)
	head.WriteString("\r\n")
	nc.SetWriteDeadline(time.Now().Add(u.conn.hub.opts.WriteTimeout))
	if _, err := nc.Write(head.Bytes()); err != nil {
		nc.Close()
		return nil, nil, err
	}
	nc.SetWriteDeadline(time.Time{})
	c := u.conn
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n) // it is buffered
		c.early = append([]byte(nil), b...)
		c.in.bytes.Add(int64(n))
	}
	if sc, ok := nc.(syscall.Conn); ok && canTry {
		// Resolved here and not at each write, which would allocate.
		if c.raw, err = sc.SyscallConn(); err != nil {
			nc.Close()
			return nil, nil, err
		}
	}
	w := (*wire)(c)
	c.br = bufio.NewReaderSize(w, readBufferBytes)
	return w, bufio.NewReadWriter(c.br, bufio.NewWriterSize(w, writeBufferBytes)), nil
}

// find looks for a capability of the server's own ResponseWriter behind what
// middleware has wrapped around it. It returns the innermost writer that it
// came to.
func find[T any](w http.ResponseWriter) (found T, innermost http.ResponseWriter, ok bool) {
	for {
		if t, ok := w.(T); ok {
			return t, w, true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return found, w, false
		}
		w = u.Unwrap()
	}
}

const wrapped = "a middleware of this server wraps the http.ResponseWriter in a %T, which hides its %s method, so no %s can be opened; " +
	"give that type a method Unwrap() http.ResponseWriter that returns what it wraps, or mount the hub outside of that middleware"

// canFlush returns nil where what is written can be sent at once.
func canFlush(w http.ResponseWriter) error {
	if _, _, ok := find[http.Flusher](w); ok {
		return nil
	}
	if _, inner, ok := find[interface{ FlushError() error }](w); !ok {
		return errNotFlushable.saying(wrapped, inner, "Flush", "stream of server-sent events")
	}
	return nil
}

// upgrade makes a WebSocket of the request. Where it fails, nothing has been
// written yet; after errGone nothing can be.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request, c *conn) error {
	hj, inner, ok := find[http.Hijacker](w)
	if !ok {
		err := errNotHijackable.saying(wrapped, inner, "Hijack", "WebSocket")
		h.log.Error("WebSocket", "err", err)
		return err
	}
	u := &upgradeWriter{ResponseWriter: w, hijacker: hj, conn: c}
	mode := websocket.CompressionNoContextTakeover
	if h.opts.CompressBytes < 0 {
		mode = websocket.CompressionDisabled
	}
	ws, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the handler has checked the origin
		CompressionMode:    mode,
		Subprotocols:       []string{subprotocol},
		OnPingReceived:     c.pong,
	})
	switch {
	case err != nil && u.status != 0 && u.status < 500:
		return errBadHandshake.saying("%s", strings.TrimSpace(string(u.said)))
	case err != nil && u.hijacked:
		if c.nc != nil {
			c.nc.Close()
		}
		return errGone
	case err != nil:
		for _, k := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Extensions"} {
			w.Header().Del(k) // it is an ordinary answer again
		}
		err := errNotHijackable.saying("the http.ResponseWriter of this server, a %T, has a Hijack method that fails, so no WebSocket can be opened; "+
			"give that type a method Unwrap() http.ResponseWriter in place of its Hijack, or mount the hub outside of that middleware", inner).because(err)
		h.log.Error("WebSocket", "err", err)
		return err
	}
	c.ws = ws
	if strings.Contains(w.Header().Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
		c.format = formatDeflate
	}
	c.writer = h.writers[h.spread.Add(1)%uint32(len(h.writers))]
	return nil
}

// subprotocol is what the server chooses where a client offers it. A browser's
// script can send a token along with a WebSocket only as one more subprotocol,
// and the browser hangs up on a server that chooses none of those offered.
const subprotocol = "channels"

// pong answers a ping through the outbox, and tells the library not to.
func (c *conn) pong(_ context.Context, payload []byte) bool {
	f := newControlFrame(opPong, payload)
	f.pong = true
	c.send(f, SlowClose)
	return false
}
