package channels

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/internal/steady"
)

// A conn is one WebSocket connection. The library does the handshake and the
// reading, in the connection's only goroutine; all writing goes through the
// outbox, the library's own control frames too (wire.go).
type conn struct {
	client
	ws     *websocket.Conn
	nc     net.Conn        // nil during the handshake; set with outbox.mu held
	raw    syscall.RawConn // nil where only a goroutine may write: TLS
	writer *writer

	deadline time.Duration // of writes, by the hub's uptime; the drainer's, over TLS
	patience *patience     // over TLS, from the first write on; the drainer's

	// What has been read and not yet taken by the library: what net/http had
	// behind the handshake, or a chunk of await's. readErr comes after it.
	early   []byte
	chunk   *chunk
	readErr error
	message *inboundBuffer // what the library is reading, or nil
	br      *bufio.Reader  // the library's

	// Both are guarded by outbox.mu: the socket is closed when nothing more
	// is read and nothing more is to be written.
	readDone, writeDone bool
}

var errSilent = errors.New("channels: no sign of life from the client")

// closeTimeout is how long a client may take to answer a close frame: less than
// apps give a shutdown, which waits for it.
const closeTimeout = 3 * time.Second

func (h *Hub) newConn(channel string, info Client) *conn {
	c := &conn{}
	h.initClient(&c.client, c, formatWS, channel, info)
	c.scheduled = true // until start: what comes before the handshake ends waits
	return c
}

// start lets a connection write what has come since it was subscribed, and
// begins to read. The conns gate owns the goroutine; it ends with the socket.
func (c *conn) start() {
	c.mu.Lock()
	killed := c.state == outboxClosed
	c.mu.Unlock()
	if killed {
		cut(c.nc)
	}
	c.wake()
	if !c.hub.conns.Run(c.serve) { // shut down during the handshake
		c.kill(ErrClosed)
		c.finish(ErrClosed)
	}
}

// wake gets a drainer to work: the connection's writer, or a goroutine.
func (c *conn) wake() {
	if c.raw != nil {
		c.writer.add(c)
		return
	}
	if !c.hub.conns.Run(func() { c.writeRest(nil, false) }) {
		c.kill(ErrClosed)
	}
}

// writeRest writes what a writer could not, and then all that is queued, for
// which it may wait. It is the drainer meanwhile, so nothing lands inside of a frame.
func (c *conn) writeRest(b []byte, last bool) {
	var frames []*frame
	var buf []byte
	for {
		if len(b) > 0 {
			if err := c.writeAll(b); err != nil {
				c.kill(err)
				return
			}
		}
		if last {
			c.wroteLast()
			return
		}
		if c.raw != nil {
			// The next to write may be a writer, which a deadline that has
			// passed would stop.
			c.nc.SetWriteDeadline(time.Time{})
		}
		frames = c.takeOwn(frames[:0])
		if len(frames) == 0 {
			return
		}
		b, last = c.client.join(&buf, frames)
		clear(frames)
	}
}

// writeAll writes b, however long it takes, as long as the client takes some of
// it within each WriteTimeout.
func (c *conn) writeAll(b []byte) error {
	timeout := c.hub.opts.WriteTimeout
	if _, socket := c.nc.(syscall.Conn); socket {
		_, err := steady.Write(c.nc, b, timeout)
		return err
	}
	return c.writeTLS(b, timeout)
}

// wroteLast notes that the close frame is out: the client has a moment to answer.
func (c *conn) wroteLast() {
	c.mu.Lock()
	c.abandonLocked(nil)
	c.writeDone = true
	done := c.readDone
	c.mu.Unlock()
	if done {
		c.nc.Close()
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(closeTimeout))
}

// kill cuts a connection that cannot be written or read any more.
func (c *conn) kill(err error) {
	c.mu.Lock()
	c.abandonLocked(err)
	c.writeDone = true
	nc := c.nc
	c.mu.Unlock()
	if nc != nil { // else start cuts it
		cut(nc) // which ends the reading
	}
}

// cut closes a socket at once. For TLS it skips the alert, for which Close
// would wait where the client has stopped reading. Without the linger, the
// system would keep what the client does not take, and try for minutes.
func cut(nc net.Conn) {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	if t, ok := nc.(interface{ SetLinger(sec int) error }); ok {
		t.SetLinger(0)
	}
	nc.Close()
}

// serve reads until the connection ends, and then takes it out of the hub.
func (c *conn) serve() {
	err := c.hub.guard("a connection", c.read)
	var crash *panicked
	if errors.As(err, &crash) {
		c.end(farewell(ErrInternal, closeInternal), err, true)
	}
	c.finish(err)
}

// read handles what the client sends until the connection ends.
func (c *conn) read() error {
	h := c.hub
	// The library reads one byte more than its limit allows. What is around
	// the body has to fit too, so that the parser can say what was too long.
	limit := h.opts.MaxMessageBytes + envelopeBytes
	c.ws.SetReadLimit(int64(limit))
	tryRead := c.tryRead
	for {
		if err := c.await(tryRead); err != nil {
			return err
		}
		typ, r, err := c.ws.Reader(context.Background()) // never cancelled: a context would cost a timer for each read
		if err != nil {
			return err
		}
		text := typ == websocket.MessageText
		buf := newInbound(claim{budget: &h.unfinished, nc: c.nc, wait: h.unfinished.timeFor(limit)})
		err = c.readMessage(buf, r, limit, text)
		if err == nil && text && !utf8.Valid(buf.b) {
			err = errText
		}
		if ended, _ := c.ended(); err == nil && !ended { // a client that is closed may not go on publishing
			c.in.messages.Add(1)
			if text {
				err = c.handle(buf.b)
			} else {
				err = c.handleBinary()
			}
		}
		buf.done()
		if err != nil {
			return err
		}
	}
}

const (
	// freeInflation is how far a message may inflate in any case, and
	// maxInflation how many times what was sent it may beyond that.
	freeInflation = 64 << 10
	maxInflation  = 100
)

// readMessage reads the rest of a message. It keeps only text. The connection
// ends with a message that takes too long, or too much.
func (c *conn) readMessage(buf *inboundBuffer, r io.Reader, limit int, keep bool) (err error) {
	buf.came = c.br.Buffered()
	if c.format == formatDeflate {
		buf.extra = inflaterBytes
	}
	c.message = buf
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
	c.message = nil
	if over := buf.claim.release(); over != nil {
		err = over
	}
	switch err {
	case io.EOF:
		return nil
	case errInflates:
		c.end(farewell(errInflates, closeTooBig), err, false)
	case errUnfinished:
		c.end(farewell(errUnfinished, closeTryAgain), err, false)
	case errTooSlow:
		c.end(farewell(errTooSlow, closePolicy), err, false)
	}
	return err
}

// await waits until the client sends something, or has gone. The library would
// wait too, but with so many calls on the stack that it takes twice the memory,
// and with a buffer of its own: most connections are idle, most of the time.
func (c *conn) await(tryRead func(fd uintptr) bool) error {
	if c.raw == nil || len(c.early) > 0 || c.br.Buffered() > 0 {
		return nil
	}
	if c.readErr == nil {
		c.raw.Read(tryRead) // where it fails, the library gets the same error
	}
	if len(c.early) == 0 {
		return c.readErr
	}
	return nil
}

var errText = errors.New("channels: a text message that is not UTF-8")

// handleBinary says that only text is taken, and counts for the limits as well.
func (c *conn) handleBinary() error {
	err := c.hub.charge(WithIdentity(c.hub.ctx, c.info.Identity), c.info)
	if err == nil {
		err = errBinary
	}
	return c.refused(err, nil)
}

// handle publishes one message of the client's, and answers. Only a panic in
// the app's code is an error: it ends the connection.
func (c *conn) handle(b []byte) error {
	// The request's own context ended when it was hijacked.
	ctx := WithIdentity(c.hub.ctx, c.info.Identity)
	if err := c.hub.charge(ctx, c.info); err != nil {
		return c.refused(err, idOf(b))
	}
	m, id, o, err := parseClientMessage(b, c.hub.opts.MaxMessageBytes)
	var res Result
	switch {
	case err != nil:
	case m.Header == headerPing: // it says that both directions work
	default:
		res, err = c.hub.publish(ctx, Publication{
			Channel: c.sub.ch.name, Message: m, Identity: c.info.Identity, Client: c.info.ID, Network: true,
		}, o)
	}
	if err == nil {
		c.answer(newExchangeFrame(res, id))
		return nil
	}
	return c.refused(err, id)
}

// refused tells the client why its message was refused; a panic ends the connection.
func (c *conn) refused(err error, id json.RawMessage) error {
	var crash *panicked
	if errors.As(err, &crash) {
		return err
	}
	c.answer(newErrorFrame(visible(err, ErrInternal), id))
	return nil
}

// idOf returns the id of a message that is not read, so that its sender knows
// which one was refused. Of a long one nothing is looked at.
func idOf(b []byte) json.RawMessage {
	if len(b) > 4<<10 {
		return nil
	}
	for name, id := range exact.Members(b) {
		if name == "id" && len(id) > 0 && len(id) <= 64 && id[0] != '{' && id[0] != '[' && string(id) != "null" && json.Valid(id) {
			return bytes.Clone(id)
		}
	}
	return nil
}

// finish takes the connection out of the hub. err is why the reading ended.
func (c *conn) finish(err error) {
	switch {
	case errors.Is(err, errText):
		// RFC 6455 section 8.1: such a connection fails.
		c.end([]*frame{newCloseFrame(closeBadText, "text that is not UTF-8")}, err, false)
	case isProtocolError(err):
		// The library sends a close frame for most violations, not for all.
		c.end([]*frame{newCloseFrame(closeProtocol, "protocol error")}, err, false)
	}
	c.leave()
	c.ws.CloseNow() // frees the library's part; the socket is ours (wire.go)

	ended, cause := c.ended()
	var ne net.Error
	if ended && websocket.CloseStatus(err) == -1 && !(errors.As(err, &ne) && ne.Timeout()) {
		// The close frame is on its way, and the client has not answered. To
		// close now would have the kernel throw away what is unread, and the
		// close frame with it.
		c.nc.SetReadDeadline(time.Now().Add(c.rest))
		io.Copy(io.Discard, c.nc)
	}
	c.mu.Lock()
	c.readDone = true
	if !ended {
		c.abandonLocked(err)
		c.writeDone = true
	}
	done := c.writeDone
	c.mu.Unlock()
	if done {
		c.nc.Close()
	}
	if cause == nil && websocket.CloseStatus(err) == -1 && !errors.Is(err, io.EOF) {
		cause = err
	}
	c.gone(cause)
}

// isProtocolError tells what a client did wrong from what the network did.
func isProtocolError(err error) bool {
	var ne net.Error
	var oe *net.OpError
	return err != nil && websocket.CloseStatus(err) == -1 && !errors.As(err, &ne) && !errors.As(err, &oe) &&
		!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, errCutOff) && !errors.Is(err, ErrInternal)
}

// parseClientMessage reads {"header":…,"body":…,"id":…,"key":…}. The id is any
// JSON scalar of at most 64 bytes; it comes back also where the rest is wrong.
// Nothing that it returns shares memory with b. A ping is {"header":"ping",…},
// of which only the id counts.
func parseClientMessage(b []byte, max int) (m Message, id json.RawMessage, o PublishOptions, err error) {
	if err = checkObject(b); err != nil {
		return m, nil, o, err
	}
	var in rawMessage
	err = in.read(b)
	if in.id != nil && string(in.id) != "null" {
		if len(in.id) > 64 || in.id[0] == '{' || in.id[0] == '[' {
			return m, nil, o, ErrBadMessage.saying("the id may be a number, a string, true or false, of up to 64 bytes")
		}
		id = bytes.Clone(in.id)
	}
	if err == nil && string(in.header) == `"`+headerPing+`"` {
		return Message{Header: headerPing}, id, o, nil
	}
	if err == nil {
		m, err = in.message(max)
	}
	if err == nil {
		o, err = in.options()
	}
	return m, id, o, err
}
