package channels

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/fanout"
)

// A wire is how the WebSocket library reads a connection: the net.Conn that it gets. It
// belongs to the goroutine that reads. What the library writes goes into the outbox, so a
// stuck client never blocks the reading. The library writes control frames only, one to a
// call, since its buffer has room for the longest.
type wire struct {
	*conn
	ws *websocket.Conn // nil while nothing waits to be read
	br *bufio.Reader   // the library's

	early   []byte         // what was read and the library has not taken
	chunk   *chunk         // that early is a part of, or nil
	message *inboundBuffer // what the library is reading, or nil
	// between is set if the library has taken all that came, and the next byte begins a
	// frame that does not continue a message.
	between bool
	given   atomic.Bool // the library's connection was given up
	talks   bool        // the connection is one of the talkers
}

// The library's buffers are small, since the connections whose library waits for more
// each have them. The write buffer holds the longest control frame (RFC 6455 section
// 5.5). The read buffer holds hardly more than a frame's header, since the payload goes
// past it.
const (
	readBufferBytes  = 16
	writeBufferBytes = 128
)

// lend has the library read the connection. The library only knows connections that it
// has made itself, out of a request; so it gets one, and its answer goes nowhere, since
// the client has had an answer long ago (conn_handshake.go).
func (w *wire) lend() (err error) {
	if w.ws != nil {
		return nil
	}
	w.between = false
	w.given.Store(false)
	r, mode := plainRequest, websocket.CompressionDisabled
	if w.Format.Deflates() {
		r, mode = deflateRequest, websocket.CompressionNoContextTakeover
	}
	w.ws, err = websocket.Accept(&lender{w, make(http.Header)}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the handler has checked the origin
		CompressionMode:    mode,
		OnPingReceived:     w.pinged,
		OnPongReceived:     w.ponged,
	})
	if err != nil {
		return ErrInternal.because(err)
	}
	w.ws.SetReadLimit(int64(w.limit()))
	return nil
}

// What the library is asked to accept, with and without compression. It only reads them.
var plainRequest, deflateRequest = func() (plain, deflate *http.Request) {
	request := func() *http.Request {
		return &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}}
	}
	plain, deflate = request(), request()
	deflate.Header["Sec-Websocket-Extensions"] = []string{deflateWithout}
	return plain, deflate
}()

// A lender is the ResponseWriter of lend.
type lender struct {
	wire *wire
	head http.Header
}

func (l *lender) Header() http.Header         { return l.head }
func (l *lender) WriteHeader(int)             {}
func (l *lender) Write(b []byte) (int, error) { return len(b), nil }

func (l *lender) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w := l.wire
	w.br = bufio.NewReaderSize(w, readBufferBytes)
	return w, bufio.NewReadWriter(w.br, bufio.NewWriterSize(w, writeBufferBytes)), nil
}

// giveUp takes the library's connection away from it. The socket stays as it is.
func (w *wire) giveUp() {
	if w.ws != nil {
		w.given.Store(true)
		w.ws.CloseNow() // frees the library's part
		w.ws, w.br = nil, nil
	}
}

// errNothing says that the library has read all that came, and is between two messages.
// So it need not wait.
var errNothing = errors.New("channels: there is nothing to read")

func (w *wire) Read(b []byte) (int, error) {
	m := w.message
	if len(w.early) > 0 {
		n := copy(b, w.early)
		w.between = false
		if m != nil {
			m.came += n
		}
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
			if w.chunk != nil {
				chunks.Put(w.chunk)
				w.chunk = nil
			}
		}
		return n, nil
	}
	if m != nil {
		if err := m.wait(); err != nil {
			return 0, err
		}
	} else if w.between {
		return 0, errNothing
	}
	n, err := w.Conn().Read(b)
	if n > 0 {
		w.between = false
		if m != nil {
			m.came += n
		}
		w.heard(n)
	}
	return n, w.broken(err)
}

// heard notes that the client has sent something.
func (c *conn) heard(bytes int) {
	c.received.bytes.Add(int64(bytes))
	c.alive.Store(true)
}

var errCutOff = errors.New("channels: the client left in the middle of a message")

// broken hides the end of the stream within a message. The library would take an
// io.EOF for the end of the message, and half a message for a whole one.
func (w *wire) broken(err error) error {
	if w.message != nil && err == io.EOF {
		return errCutOff
	}
	return err
}

func (w *wire) Write(b []byte) (int, error) {
	if len(b) > 0 && b[0] == fanout.OpClose {
		if len(b) > 4 && !utf8.Valid(b[4:]) {
			// The client's own reason, which the library sends back unread.
			w.End([]*fanout.Frame{newCloseFrame(closeBadText, "a reason that is not UTF-8")}, errText, false)
			return len(b), nil
		}
		w.End([]*fanout.Frame{fanout.NewLast(b)}, nil, false)
	}
	return len(b), nil
}

// Close is called by the library, also if a control frame does not come completely. The
// socket stays open until the close frame is out (conn.finish), but the reader is let go.
func (w *wire) Close() error {
	if w.given.Load() {
		return nil
	}
	return w.Conn().SetReadDeadline(time.Unix(1, 0))
}

func (w *wire) LocalAddr() net.Addr              { return w.Conn().LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.Conn().RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// pinged answers a ping through the outbox. It returns false, so that the library
// does not answer.
func (w *wire) pinged(_ context.Context, payload []byte) bool {
	w.Send(fanout.NewPong(payload), fanout.Close)
	w.controlled()
	return false
}

func (w *wire) ponged(context.Context, []byte) { w.controlled() }

// controlled notes that the library has read a control frame.
func (w *wire) controlled() {
	w.between = w.RawConn() != nil && w.message == nil && w.br.Buffered() == 0
}
