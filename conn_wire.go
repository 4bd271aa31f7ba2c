package channels

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/fanout"
)

// A wire is the net.Conn that the WebSocket library gets. It reads from the
// socket. What the library writes goes into the outbox, so a stuck client never
// blocks the reading. The library writes control frames only, one to a call, since
// its buffer has room for the longest.
type wire conn

func (w *wire) Read(b []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(b, w.early)
		if m := w.message; m != nil {
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
	if w.readErr != nil {
		return 0, w.broken(w.readErr)
	}
	m := w.message
	if m != nil {
		if err := m.wait(); err != nil {
			return 0, err
		}
	}
	n, err := w.Conn().Read(b)
	if n > 0 {
		if m != nil {
			m.came += n
		}
		w.received.bytes.Add(int64(n))
		w.alive.Store(true)
	}
	return n, w.broken(err)
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

// Close is called by the library. The socket stays open until the close frame is
// out (conn.finish), but the reader is let go.
func (w *wire) Close() error {
	return w.Conn().SetReadDeadline(time.Unix(1, 0))
}

func (w *wire) LocalAddr() net.Addr              { return w.Conn().LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.Conn().RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// pong answers a ping through the outbox. It returns false, so that the library
// does not answer.
func (c *conn) pong(_ context.Context, payload []byte) bool {
	c.Send(fanout.NewPong(payload), fanout.Close)
	return false
}
