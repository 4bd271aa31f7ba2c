package channels

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/fanout"
)

// A conn is one WebSocket connection. The library does the handshake and the
// reading, in the connection's only goroutine. All writing goes through the
// Socket's outbox, that of the library's own control frames too (conn_wire.go).
type conn struct {
	client
	fanout.Socket
	ws *websocket.Conn

	// early is what has been read and not yet taken by the library: what
	// net/http had behind the handshake, or a chunk of await's. readErr comes
	// after it.
	early   []byte
	chunk   *chunk
	readErr error
	message *inboundBuffer // what the library is reading, or nil
	br      *bufio.Reader  // the library's
}

var errSilent = errors.New("channels: no sign of life from the client")

const closeTimeout = fanout.CloseTimeout

// serveWebSocket subscribes, upgrades, and returns. The connection goes on
// without the handler, whose goroutine and buffers are freed. After an error
// there is no connection.
func (h *Hub) serveWebSocket(w http.ResponseWriter, r *http.Request, name string, info Client, q channelQuery) error {
	c := &conn{}
	c.Socket.Init(h.fan)
	h.initClient(&c.client, &c.Socket.Outbox, name, info)
	c.heartbeat, c.placed = q.heartbeat, q.position
	if q.as == fanout.BodyEvents {
		c.Format = fanout.Bodies
	}
	// The client is subscribed before the handshake ends, so that it misses
	// nothing from the moment it knows that it is connected.
	if err := c.letIn(r.Context(), q.start); err != nil {
		return err
	}
	// A middleware's Hijack may panic, as gin's does if the writer below has none.
	err := h.guard("the upgrade", func() error {
		c.admit()
		return h.upgrade(w, r, c)
	})
	if err != nil {
		c.leave()
		c.Abandon(err)
		c.gone(err)
		return err
	}
	c.welcome(r.Context(), c.subs.first)
	c.start()
	return nil
}

// start lets the connection write what was sent since it was subscribed, and
// begins to read. The goroutine is one of the fan-out's Conns, and ends with the
// socket.
func (c *conn) start() {
	c.Start()
	if !c.hub.fan.Conns.Run(c.serve) { // shut down during the handshake
		c.Kill(ErrClosed)
		c.finish(ErrClosed)
	}
}

// serve reads until the connection ends, and then takes it out of the hub.
func (c *conn) serve() {
	err := c.hub.guard("a connection", c.read)
	if errors.As(err, new(*panicked)) {
		c.End(farewell(ErrInternal, closeInternal), err, true)
	}
	c.finish(err)
}

// read handles what the client sends until the connection ends.
func (c *conn) read() error {
	h := c.hub
	// The library reads one byte more than its limit allows. The text around
	// the body has to fit as well, so that the parser can say what was too long.
	limit := h.opts.MaxMessageBytes + envelopeBytes
	if c.session != nil { // several commands
		limit = h.opts.batchBytes()
	}
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
		wanted := text != (c.Format == fanout.ClientProtobuf)
		buf := newInbound(claim{budget: &h.unfinished, nc: c.Conn(), wait: h.unfinished.timeFor(limit)})
		err = c.readMessage(buf, r, limit, wanted)
		if err == nil && text && !utf8.Valid(buf.b) {
			err = errText
		}
		if ended, _ := c.Ended(); err == nil && !ended { // a client that was told to go publishes no more
			err = c.handle(buf.b, wanted)
		}
		buf.done()
		if err != nil {
			return err
		}
	}
}

const (
	// A message may inflate to freeInflation bytes, and beyond that to
	// maxInflation times the bytes that were sent.
	freeInflation = 64 << 10
	maxInflation  = 100
)

// readMessage reads the rest of a message into buf; without keep it is only
// counted. The connection ends at a message that takes too long, or too much memory.
func (c *conn) readMessage(buf *inboundBuffer, r io.Reader, limit int, keep bool) (err error) {
	buf.came = c.br.Buffered()
	if c.Format.Deflates() {
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
		c.End(farewell(errInflates, closeTooBig), err, false)
	case errUnfinished:
		c.End(farewell(errUnfinished, closeTryAgain), err, false)
	case errTooSlow:
		c.End(farewell(errTooSlow, closePolicy), err, false)
	}
	return err
}

// await waits until the client sends something, or has gone. The library could
// wait as well, but its calls take twice the memory on the stack, and a buffer.
// Most connections are idle most of the time.
func (c *conn) await(tryRead func(fd uintptr) bool) error {
	if c.RawConn() == nil || len(c.early) > 0 || c.br.Buffered() > 0 {
		return nil
	}
	if c.readErr == nil {
		c.RawConn().Read(tryRead) // if it fails, the library gets the same error
	}
	if len(c.early) == 0 {
		return c.readErr
	}
	return nil
}

var errText = errors.New("channels: a text message that is not UTF-8")

// These are in close frames.
const (
	reasonBadText  = "text that is not UTF-8"
	reasonBadFrame = "protocol error"
)

// handle takes a message of the client's. Only a panic in the app's code is an error:
// it ends the connection. Of a message that is not wanted, since it is binary where text
// is, or text where binary is, b has nothing.
func (c *conn) handle(b []byte, wanted bool) error {
	switch {
	case c.session == nil:
		return c.publish(b, wanted)
	case !wanted:
		c.session.end(endBadRequest, errBadFrame.saying("a binary frame on a connection for JSON, or text on one for Protobuf"))
		return nil
	}
	err := c.session.take(b)
	c.Write()
	return err
}

// publish publishes one message of the client's, and answers.
func (c *conn) publish(b []byte, text bool) error {
	c.received.messages.Add(1)
	counts := &c.hub.stats.publishes[doorWebSocket]
	// The request's own context ended when it was hijacked.
	ctx := WithIdentity(c.hub.ctx, c.info.Identity)
	if err := c.hub.charge(ctx, c.info); err != nil {
		counts.note(false, err)
		return c.refused(err, idOf(b))
	}
	if !text {
		counts.note(false, errBinary)
		return c.refused(errBinary, nil)
	}
	m, id, o, err := parseClientMessage(b, c.hub.opts.MaxMessageBytes)
	var res Result
	if err == nil && m.Header == headerPing { // it says that both directions work
		c.answer(newExchangeFrame(res, id))
		return nil
	}
	if err == nil {
		res, err = c.hub.publish(ctx, Publication{
			Channel: c.publishesOn(), Message: m, Identity: c.info.Identity, Client: c.info.ID, Network: true,
		}, o)
	}
	counts.note(res.Duplicate, err)
	if err == nil {
		c.answer(newExchangeFrame(res, id))
		return nil
	}
	return c.refused(err, id)
}

// publishesOn is the channel of the messages that the client sends: a connection that
// is opened for one channel publishes on it.
func (c *conn) publishesOn() string { return c.subs.first.channel }

// refused tells the client why its message was refused. A panic of the app's code
// is returned, and ends the connection.
func (c *conn) refused(err error, id json.RawMessage) error {
	if errors.As(err, new(*panicked)) {
		return err
	}
	c.answer(newErrorFrame(visible(err, ErrInternal), id))
	return nil
}

// finish takes the connection out of the hub. err is why the reading ended.
func (c *conn) finish(err error) {
	switch {
	case errors.Is(err, errText):
		// RFC 6455 section 8.1: such a connection fails.
		c.End([]*fanout.Frame{newCloseFrame(closeBadText, reasonBadText)}, err, false)
	case isProtocolError(err):
		// The library sends a close frame for most violations, not for all.
		c.End([]*fanout.Frame{newCloseFrame(closeProtocol, reasonBadFrame)}, err, false)
	}
	c.leave()
	ended, cause := c.Ended()
	if c.session != nil {
		if !ended {
			c.Abandon(err) // which nobody should wait for
		}
		c.session.entering.Wait() // no hook comes after OnDisconnect
	}
	c.ws.CloseNow() // frees the library's part; the socket is ours (conn_wire.go)

	var ne net.Error
	if ended && websocket.CloseStatus(err) == -1 && !(errors.As(err, &ne) && ne.Timeout()) {
		c.AwaitClose() // the client has not answered the close frame
	}
	c.Finish(err, !ended)
	if cause == nil && websocket.CloseStatus(err) == -1 && !errors.Is(err, io.EOF) {
		cause = err
	}
	c.gone(cause)
}

// isProtocolError tells what a client did wrong from what the network did.
func isProtocolError(err error) bool {
	var ne net.Error // a *net.OpError is one, too
	return err != nil && websocket.CloseStatus(err) == -1 && !errors.As(err, &ne) &&
		!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, errCutOff) && !errors.Is(err, ErrInternal)
}
