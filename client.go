package channels

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/fanout"
)

// Client is one connection, as hooks see it.
type Client struct {
	ID         string // unique over all replicas
	Identity   Identity
	RemoteAddr string // of the TCP connection, as net/http gives it; empty for Go subscribers
	Transport  string // "websocket", "sse", "http_stream" or "go"; for OnReceive also "http" or "bridge"

	// Connected is when the connection's request arrived. Received and Sent
	// are what it has carried so far; OnDisconnect gets the totals. What is
	// being written when a connection is cut counts as sent.
	Connected      time.Time
	Received, Sent Traffic
}

// The values of Client.Transport.
const (
	transportWebSocket = "websocket"
	transportSSE       = "sse"
	transportLines     = "http_stream"
	transportGo        = "go"
	transportHTTP      = "http"
	transportBridge    = "bridge"
)

// Traffic is what a connection has carried in one direction.
type Traffic struct {
	Messages int64 // with errors, acknowledgements and the hub's other messages
	Bytes    int64 // on the socket (before TLS) or in the event stream: with framing, pings and compression, without the HTTP handshake
}

// A client is one receiver and its subscriptions: a WebSocket connection, a
// stream of server-sent events, or a Go subscriber. What sends to it and ends it
// may be called concurrently. Its life is enter, or letIn for a connection of one
// channel, then admit and welcome, and at its end leave and gone. A session has
// no channel of its own, and is let in by its first command (connect.go).
type client struct {
	hub  *Hub
	out  *fanout.Outbox // of whatever the client is a part of
	info Client
	subs subscriptions

	session *session // of the client protocol, or nil
	several *several // of an event stream of several channels, or nil

	slot, at  int32       // its place in the table, guarded by clientTable.mu
	alive     atomic.Bool // it has given a sign of life since it was asked for one
	asked     bool        // it was asked for one; only pingSome uses this
	heartbeat bool        // ?heartbeat=event: its pings are visible to scripts
	placed    bool        // ?position=event: it is told where it begins
	expiry    *time.Timer // of the identity
	right     *time.Timer // of the right to the first subscription
	received  struct{ messages, bytes atomic.Int64 }
}

// initClient prepares a client. If channel is not empty, it is the one that the client
// wants to subscribe to.
func (h *Hub) initClient(c *client, out *fanout.Outbox, channel string, info Client) {
	c.info = info
	c.init(h, out, channel)
}

// init is initClient for a client whose info is set already.
func (c *client) init(h *Hub, out *fanout.Outbox, channel string) {
	c.hub, c.out = h, out
	c.alive.Store(true) // nobody has asked yet
	if channel != "" {
		c.subs.start(newSubscription(c, channel))
	}
}

// totals is the client as hooks see it, with what it has carried so far.
func (c *client) totals() Client {
	info := c.info
	info.Received = Traffic{c.received.messages.Load(), c.received.bytes.Load()}
	info.Sent = Traffic{c.out.Sent.Messages.Load(), c.out.Sent.Bytes.Load()}
	return info
}

// inGo reports whether the receiver is Go code: that is no connection, so there
// are no hooks for one, no presence and no pings.
func (c *client) inGo() bool { return c.info.Transport == transportGo }

// answer sends what the hub itself says to this client. If its queue is full and each
// of its channels may drop messages, they make room. Otherwise, or if that is not
// enough, the client is closed as slow.
func (c *client) answer(f *fanout.Frame) { c.out.Send(f, c.policy()) }

func (c *client) policy() fanout.Policy { return fanout.Policy(c.subs.policy.Load()) }

// enter makes a client findable before anybody is asked whether it may come: a
// user who is banned and disconnected meanwhile does not slip through. From now
// on its identity can expire, too. The context that it returns ends when the
// client is ended. The caller calls done in any case, and turnAway if the client
// is not let in.
func (c *client) enter(ctx context.Context) (in context.Context, done func()) {
	h := c.hub
	coming := &coming{Context: ctx}
	if e := c.info.Identity.Expires; !e.IsZero() {
		c.expiry = c.endAt(e)
	}
	c.out.WhenOver(coming.end)
	h.clients.expect(c) // from here on the hub may end it
	c.endIfClosing()
	return coming, func() {
		c.out.WhenOver(nil)
		coming.end()
	}
}

// endAt ends the client at a time.
func (c *client) endAt(t time.Time) *time.Timer {
	return time.AfterFunc(time.Until(t), func() {
		c.out.End(farewell(ErrExpired, closeUnauthorized), ErrExpired, false)
	})
}

// endIfClosing ends a client that comes while Drain or Shutdown is at work, which
// may not have seen it.
func (c *client) endIfClosing() {
	if err := c.hub.closing(c.inGo()); err != nil {
		c.out.End(farewell(err, closeGoingAway), err, false)
	}
}

// closing returns why nobody may subscribe any more, or nil.
func (h *Hub) closing(inGo bool) *Error {
	switch {
	case h.calls.Closed():
		return ErrClosed
	case h.refusing.Load() && !inGo:
		return ErrDraining
	}
	return nil
}

// turnAway undoes enter for a client that err kept out. It returns the cause with
// which the client was ended meanwhile, or err.
func (c *client) turnAway(err error) error {
	if ended, cause := c.out.Ended(); ended && cause != nil {
		err = cause
	}
	c.forget()
	c.out.Abandon(err)
	return err
}

// forget takes the client out of the hub's table.
func (c *client) forget() {
	for _, t := range []*time.Timer{c.expiry, c.right} {
		if t != nil {
			t.Stop()
		}
	}
	c.hub.clients.remove(c)
}

// letIn asks the app whether a connection may come and subscribe, and subscribes
// it. The connection counts against the limits already; after an error it no
// longer does.
func (c *client) letIn(ctx context.Context, from start) error {
	h, s := c.hub, c.subs.first
	ctx, done := c.enter(ctx)
	defer done()
	ch, until, err := c.ask(ctx, s, "")
	if err == nil {
		if err = c.connected(ctx); err != nil {
			ch.release()
		}
	}
	if err == nil && !until.IsZero() {
		c.right = c.endAt(until)
	}
	if err != nil {
		err = c.turnAway(err)
		h.admission.dismiss(c.info.RemoteAddr)
		return err
	}
	// From here on OnDisconnect follows.
	ended, err := c.out.Ended()
	if ended {
		ch.release()
	} else if _, err = s.attach(ctx, ch, from); err == nil {
		c.subs.settle(s) // nobody ends it: it is the client's only one
	}
	if err != nil {
		err = c.turnAway(err)
		c.disconnected(err)
	}
	return err
}

// ask asks the app whether the client may have a subscription, and returns its
// channel, in use, and when the right to it ends. token is what the client has shown
// for it.
func (c *client) ask(ctx context.Context, s *subscription, token string) (ch *channel, until time.Time, err error) {
	if until, err = c.mayCome(ctx, s, token); err == nil {
		ch, err = c.hub.use(s.channel, false)
	}
	return ch, until, err
}

// mayCome is mayHave for a subscription that is to be attached, of a client that stays.
func (c *client) mayCome(ctx context.Context, s *subscription, token string) (until time.Time, err error) {
	until, err = c.mayHave(ctx, s, token)
	if ended, cause := c.out.Ended(); err == nil && ended {
		err = cause
	}
	return until, err
}

// mayHave asks the app whether the client may have a subscription, and until when.
func (c *client) mayHave(ctx context.Context, s *subscription, token string) (until time.Time, err error) {
	var r Request
	c.fill(&r, s, token)
	if until, err = c.hub.authorizeUntil(ctx, &r); err == nil {
		err = c.hub.checkInfo(&r.Identity)
	}
	return until, err
}

// fill sets what Authorize is asked about a subscription.
func (c *client) fill(r *Request, s *subscription, token string) {
	r.Action, r.Channel, r.Pattern, r.Token = ActionSubscribe, s.channel, isPattern(s.channel), token
	if c.session == nil {
		r.Identity = c.info.Identity
		return
	}
	c.session.fill(r)
}

// identity is who the client is. For a session it may change.
func (c *client) identity() Identity {
	if c.session == nil {
		return c.info.Identity
	}
	return c.session.identity()
}

// seen is the client as hooks see it. It may be called concurrently.
func (c *client) seen() Client {
	if s := c.session; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	return c.info
}

// checkInfo refuses an identity whose Info cannot be shown to others.
func (h *Hub) checkInfo(id *Identity) error {
	if len(id.Info) > 0 && !(json.Valid(id.Info) && utf8.Valid(id.Info)) {
		h.log.Error("Identity.Info is not JSON in UTF-8, so nobody could read the presence", "user", id.ID)
		return ErrInternal
	}
	return nil
}

// connected calls the app's hook, which may refuse the connection.
func (c *client) connected(ctx context.Context) error {
	h := c.hub
	if h.opts.OnConnect == nil {
		return nil
	}
	if err := h.guard("OnConnect", func() error { return h.opts.OnConnect(ctx, c.info) }); err != nil {
		return h.refusal("OnConnect", err)
	}
	return nil
}

// admit makes a client one of the hub's, with its first subscription if it has one:
// from now on it is counted, pinged, and shown by presence. leave and gone undo it.
func (c *client) admit() {
	c.hub.stats.connects[c.door()].Add(1)
	c.hub.clients.add(c)
	if c.session == nil && c.several == nil {
		c.show(c.subs.first)
	}
	c.endIfClosing()
}

// show shows the client in the channel's presence.
func (c *client) show(s *subscription) {
	if !c.inGo() && s.feed == nil {
		id := c.identity()
		c.hub.joined(s.ch, Member{ID: c.info.ID, User: id.ID, Info: id.Info})
	}
}

// welcome calls the app's hook. A panic in it ends the connection.
func (c *client) welcome(ctx context.Context, s *subscription) {
	h := c.hub
	if h.opts.OnSubscribe == nil {
		return
	}
	err := h.guard("OnSubscribe", func() error { h.opts.OnSubscribe(ctx, c.seen(), s.name()); return nil })
	if err != nil {
		c.out.End(farewell(ErrInternal, closeInternal), err, true)
	}
}

// quit ends an attached subscription and its presence. The channel is free to go. For
// next, see subscriptions.end.
func (c *client) quit(s *subscription) (next *subscription) {
	if s.feed != nil {
		s.feed.detach(s)
		c.hub.leaveFeed(s.feed)
	} else {
		s.ch.detach(s)
		if !c.inGo() {
			c.hub.left(s.ch, c.info.ID)
		}
		s.ch.release()
	}
	return c.subs.end(s)
}

// unsubscribe ends the client's subscription to a channel or a pattern, for the app, and
// with it a client that has no other. It reports whether the client had the subscription.
func (c *client) unsubscribe(channel string) bool {
	switch {
	case c.session != nil:
		return c.session.unsubscribed(channel, unsubscribedByServer)
	case c.several != nil:
		return c.several.unsubscribed(c, channel)
	}
	found := c.subs.find(channel) != nil
	if found {
		c.out.End(farewell(ErrUnsubscribed, closeForbidden), ErrUnsubscribed, false)
	}
	return found
}

// leave ends the client's subscriptions and their presence. It may be repeated.
func (c *client) leave() {
	first, more := c.subs.takeAll()
	if first != nil {
		c.quit(first)
	}
	for _, s := range more {
		c.quit(s)
	}
}

// gone undoes admit and calls the app's hook.
func (c *client) gone(cause error) {
	c.forget()
	switch {
	case c.inGo():
	case c.session != nil && !c.session.connected: // OnConnect has not let it in
		c.hub.admission.dismiss(c.info.RemoteAddr)
	default:
		c.disconnected(cause)
	}
}

// disconnected makes room for another connection, and calls the app's hook.
func (c *client) disconnected(cause error) {
	h := c.hub
	h.admission.dismiss(c.info.RemoteAddr)
	if h.log.Enabled(context.Background(), slog.LevelDebug) {
		h.log.Debug("disconnected", "client", c.info.ID, "cause", cause)
	}
	if h.opts.OnDisconnect != nil {
		h.guard("OnDisconnect", func() error { h.opts.OnDisconnect(c.totals(), cause); return nil })
	}
}
