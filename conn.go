package channels

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/fanout"
)

// A conn is one WebSocket connection. While its client sends nothing, this is all that
// it takes: it rests, and nobody waits for it. When there is something to read, a
// goroutine has it read by the library (conn_read.go). All writing goes through the
// Socket's outbox, that of the library's own control frames too (conn_wire.go).
type conn struct {
	client
	fanout.Socket
	talked atomic.Bool // since talkers.hush last looked
}

var errSilent = errors.New("channels: no sign of life from the client")

const closeTimeout = fanout.CloseTimeout

// serveWebSocket subscribes, upgrades, and returns. The connection goes on
// without the handler, whose goroutine and buffers are freed. After an error
// there is no connection.
func (h *Hub) serveWebSocket(w http.ResponseWriter, r *http.Request, name string) error {
	if err := checkHandshake(w, r); err != nil {
		return err // before presence shows a member that comes and goes
	}
	q, err := channelQueryOf(r, false)
	if err != nil {
		return err
	}
	if q.as == fanout.Named {
		return ErrBadQuery.saying("format=event is for an event stream (Accept: text/event-stream); a WebSocket has no names for its messages")
	}
	c := &conn{}
	c.info.Transport = transportWebSocket
	if _, err := h.arrives(r, &c.info); err != nil {
		return err
	}
	defer h.fan.Conns.Leave()
	c.Socket.Init(h.fan)
	c.init(h, &c.Socket.Outbox, name)
	c.heartbeat, c.placed = q.heartbeat, q.position
	if q.as == fanout.BodyEvents {
		c.Format = fanout.Bodies
	}
	// The client is subscribed before the handshake ends, so that it misses
	// nothing from the moment it knows that it is connected.
	if err := c.letIn(r.Context(), q.start); err != nil {
		return err
	}
	c.admit()
	early, err := h.upgrade(w, r, c)
	if err != nil {
		c.leave()
		c.Abandon(err)
		c.gone(err)
		return err
	}
	c.welcome(r.Context(), c.subs.first)
	c.start(early)
	return nil
}

// start lets the connection write what was sent since it was subscribed, and begins to
// read. early is what the client has sent with the handshake. From here on, the connection
// is one of the fan-out's Conns, until its end.
func (c *conn) start(early []byte) {
	c.Start()
	if !c.hub.fan.Conns.Enter() { // shut down during the handshake
		c.Kill(ErrClosed)
		c.finish(ErrClosed)
		return
	}
	// The client of a session has something to say at once.
	if talks := c.session != nil; talks || len(early) > 0 || !c.Rest(c) {
		go c.serve(early, talks)
	}
}

// Readable reads: see Socket.Rest. It starts a goroutine for that, which ends with the next
// rest, or with the connection. But first it looks itself whether a client that was pinged
// brings nothing but its pong.
func (c *conn) Readable() {
	if c.alive.Load() {
		go c.resume()
	} else if g := c.glance(); !g.rests {
		go c.goOn(g)
	}
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
	case err == io.EOF: // as for most, so that nothing is allocated to find out
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

	if ended && websocket.CloseStatus(err) == -1 && !isTimeout(err) {
		c.AwaitClose() // the client has not answered the close frame
	}
	c.Finish(err, !ended)
	if cause == nil && err != io.EOF && websocket.CloseStatus(err) == -1 && !errors.Is(err, io.EOF) {
		cause = err
	}
	c.gone(cause)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// isProtocolError tells what a client did wrong from what the network did.
func isProtocolError(err error) bool {
	var ne net.Error // a *net.OpError is one, too
	return err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
		!errors.Is(err, errCutOff) && !errors.Is(err, ErrInternal) && websocket.CloseStatus(err) == -1 && !errors.As(err, &ne)
}
