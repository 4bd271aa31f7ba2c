package channels

import (
	"context"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/fanout"
)

// serve reads until the client is silent, and lets the connection rest; or until the
// connection ends, and then takes it out of the hub. With talks, the client is expected
// to say something soon.
func (c *conn) serve(early []byte, talks bool) {
	w := &wire{conn: c, early: early}
	if talks {
		w.talk()
	}
	w.serve()
}

// resume is serve for a connection that rested. Most wake to answer a ping or to leave,
// and for that nothing is made ready to read more.
func (c *conn) resume() {
	if g := c.glance(); !g.rests {
		c.goOn(g)
	}
}

// A glance is what was there to be read when a connection's rest ended.
type glance struct {
	rests bool // the connection does, again, and may be another goroutine's already
	early []byte
	chunk *chunk // of early
	err   error
}

// glance reads once, without waiting. After a pong, or if nothing has come, it lets the
// connection rest again.
func (c *conn) glance() (g glance) {
	g.early, g.chunk, g.err = c.tryRead(c.RawConn(), false, false)
	c.Unmuffle()
	switch {
	case g.err != nil:
	case len(g.early) == 0:
		g.rests = c.Rest(c)
	case isPong(g.early):
		chunks.Put(g.chunk)
		g = glance{rests: c.Rest(c)}
	}
	return g
}

// goOn serves a connection that does not rest after a glance.
func (c *conn) goOn(g glance) {
	if g.err != nil {
		c.over(g.err)
		return
	}
	w := &wire{conn: c, early: g.early, chunk: g.chunk}
	w.serve()
}

// isPong reports whether b, which begins with a frame, is one pong that the library
// would take without a word: masked, and of up to 125 bytes (RFC 6455 section 5.5).
func isPong(b []byte) bool {
	const header, masked = 6, 0x80
	return len(b) >= header && b[0] == fanout.OpPong && b[1] >= masked && int(b[1]-masked) == len(b)-header && len(b) <= header+125
}

func (w *wire) serve() {
	err := w.hub.guard("a connection", w.read)
	if err == errRests { // it may be another goroutine's already
		return
	}
	if isPanic(err) {
		w.End(farewell(ErrInternal, closeInternal), err, true)
	}
	w.hush()
	w.giveUp()
	w.over(err)
}

// over takes the connection out of the hub. err is why the reading ended.
func (c *conn) over(err error) {
	c.finish(err)
	c.hub.fan.Conns.Leave()
}

var errRests = errors.New("channels: the connection rests")

// read handles what the client sends until the connection rests or ends.
func (w *wire) read() error {
	h := w.hub
	for {
		if err := w.await(); err != nil {
			return err
		}
		if err := w.lend(); err != nil {
			return err
		}
		typ, r, err := w.ws.Reader(context.Background()) // never cancelled: a context would cost a timer for each read
		if errors.Is(err, errNothing) {
			w.giveUp() // after an error it is of no use
			continue
		}
		if err != nil {
			return err
		}
		text := typ == websocket.MessageText
		wanted := text != (w.Format == fanout.ClientProtobuf)
		limit := w.limit()
		buf := newInbound(claim{budget: &h.unfinished, nc: w.Conn(), wait: h.unfinished.timeFor(limit)})
		err = w.readMessage(buf, r, limit, wanted)
		if err == nil && text && !utf8.Valid(buf.b) {
			err = errText
		}
		if ended, _ := w.Ended(); err == nil && !ended { // a client that was told to go publishes no more
			before := w.received.messages.Load()
			err = w.handle(buf.b, wanted)
			if w.received.messages.Load() != before { // a pong of the client protocol is none
				w.talk()
			}
		}
		buf.done()
		if err != nil {
			return err
		}
	}
}

// limit is how long a message may be. The library reads one byte more than its limit
// allows. The text around the body has to fit as well, so that the parser can say what
// was too long.
func (c *conn) limit() int {
	if c.session != nil { // several commands
		return c.hub.opts.batchBytes()
	}
	return c.hub.opts.MaxMessageBytes + envelopeBytes
}

// await waits until the client sends something, or has gone. Then it returns nil, or
// why nothing more comes. It returns errRests if the caller need not wait.
//
// The library could wait as well, but its calls take twice the memory on the stack.
func (w *wire) await() error {
	raw := w.RawConn()
	if raw == nil || len(w.early) > 0 || w.ws != nil && w.br.Buffered() > 0 {
		return nil
	}
	if came, err := w.try(raw, w.talks); came || err != nil {
		return err
	}
	w.hush()
	w.giveUp()
	if w.Rest(w.conn) {
		return errRests
	}
	_, err := w.try(raw, true)
	return err
}

const (
	// A message may inflate to freeInflation bytes, and beyond that to
	// maxInflation times the bytes that were sent.
	freeInflation = 64 << 10
	maxInflation  = 100
)

// readMessage reads the rest of a message into buf; without keep it is only
// counted. The connection ends at a message that takes too long, or too much memory.
func (w *wire) readMessage(buf *inboundBuffer, r io.Reader, limit int, keep bool) (err error) {
	buf.came = w.br.Buffered()
	if w.Format.Deflates() {
		buf.extra = inflaterBytes
	}
	w.message = buf
	size := 0
	for err == nil {
		buf.grow(limit)
		before := len(buf.b)
		err = buf.read(r)
		if size += len(buf.b) - before; !keep {
			buf.b = buf.b[:0]
		}
		if size > freeInflation+maxInflation*buf.came {
			err = errInflates
		}
	}
	w.message = nil
	if over := buf.claim.release(); over != nil {
		err = over
	}
	switch err {
	case io.EOF:
		return nil
	case errInflates:
		w.End(farewell(errInflates, closeTooBig), err, false)
	case errUnfinished:
		w.End(farewell(errUnfinished, closeTryAgain), err, false)
	case errTooSlow:
		w.End(farewell(errTooSlow, closePolicy), err, false)
	}
	return err
}
