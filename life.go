package channels

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
	"unicode/utf8"
)

// The life of a client: enter, letIn for a connection, admit, welcome, leave, gone.

// enter makes a client findable that is to be let in, before anybody is asked
// whether it may: who is banned and disconnected meanwhile does not slip
// through. Its identity can expire from now on, too. The context that it returns
// ends where the client is ended; done follows in any case, and where the client
// is not let in, turnAway.
func (c *client) enter(ctx context.Context) (in context.Context, done func()) {
	h := c.hub
	in, cancel := context.WithCancel(ctx)
	if e := c.info.Identity.Expires; !e.IsZero() {
		c.expiry = time.AfterFunc(time.Until(e), func() {
			c.out.End(farewell(ErrExpired, closeUnauthorized), ErrExpired, false)
		})
	}
	c.out.WhenOver(cancel)
	h.clients.expect(c) // from here on the hub may end it
	c.mindTheEnd()
	return in, func() {
		c.out.WhenOver(nil)
		cancel()
	}
}

// mindTheEnd ends a client that comes while Drain or Shutdown is at work, which
// may not have seen it.
func (c *client) mindTheEnd() {
	switch h := c.hub; {
	case h.calls.Closed():
		c.out.End(farewell(ErrClosed, closeGoingAway), ErrClosed, false)
	case h.draining.Load() && !c.inGo():
		c.out.End(farewell(ErrDraining, closeGoingAway), ErrDraining, false)
	}
}

// turnAway undoes enter where err kept the client out, and returns what did:
// who ended it says why.
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
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.hub.clients.remove(c)
}

// letIn asks the app whether a connection may subscribe, and subscribes it. It
// counts already against the limits; after an error it no longer does.
func (c *client) letIn(ctx context.Context, since *Position) error {
	h := c.hub
	ctx, done := c.enter(ctx)
	defer done()
	ch, err := c.ask(ctx)
	if err != nil {
		err = c.turnAway(err)
		h.admission.dismiss(c.info.RemoteAddr)
		return err
	}
	// From here on OnDisconnect follows.
	ended, err := c.out.Ended()
	if !ended {
		err = ch.attach(ctx, &c.sub, since)
	}
	if err != nil {
		ch.release()
		err = c.turnAway(err)
		h.disconnected(c.info, err)
		return err
	}
	return nil
}

// ask asks the app, and returns the channel, in use.
func (c *client) ask(ctx context.Context) (*channel, error) {
	h, id := c.hub, c.info.Identity
	if err := h.authorize(ctx, Request{Action: ActionSubscribe, Channel: c.channel, Identity: id}); err != nil {
		return nil, err
	}
	if len(id.Info) > 0 && !(json.Valid(id.Info) && utf8.Valid(id.Info)) {
		h.log.Error("Identity.Info is not JSON in UTF-8, so nobody could read the presence", "user", id.ID)
		return nil, ErrInternal
	}
	if ended, cause := c.out.Ended(); ended {
		return nil, cause
	}
	ch, err := h.use(c.channel, false)
	if err != nil || h.opts.OnConnect == nil {
		return ch, err
	}
	if err := h.guard("OnConnect", func() error { return h.opts.OnConnect(ctx, c.info) }); err != nil {
		ch.release()
		return nil, h.refusal("OnConnect", err)
	}
	return ch, nil
}

// admit makes a subscribed client one of the hub's: from now on it is counted,
// pinged, and shown by presence. gone undoes it.
func (c *client) admit() {
	h, id := c.hub, c.info.Identity
	h.stats.connects.Add(1)
	h.clients.add(c)
	if !c.inGo() {
		h.joined(c.sub.ch, Member{ID: c.info.ID, User: id.ID, Info: id.Info})
	}
	c.mindTheEnd()
}

// welcome calls the app's hook. A panic in it ends the connection.
func (c *client) welcome(ctx context.Context) {
	h := c.hub
	if h.opts.OnSubscribe == nil {
		return
	}
	err := h.guard("OnSubscribe", func() error { h.opts.OnSubscribe(ctx, c.info, c.sub.ch.name); return nil })
	if err != nil {
		c.out.End(farewell(ErrInternal, closeInternal), err, true)
	}
}

// leave ends the client's subscription and presence. It may be repeated.
func (c *client) leave() {
	c.sub.ch.detach(&c.sub)
	if !c.inGo() {
		c.hub.left(c.sub.ch, c.info.ID)
	}
}

// gone undoes admit and calls the app's hook. The channel is free to go.
func (c *client) gone(cause error) {
	c.forget()
	c.sub.ch.release()
	if !c.inGo() {
		c.hub.disconnected(c.totals(), cause)
	}
}

// disconnected calls the app's hook, and makes room for another connection.
func (h *Hub) disconnected(info Client, cause error) {
	h.admission.dismiss(info.RemoteAddr)
	h.log.LogAttrs(context.Background(), slog.LevelDebug, "disconnected", slog.String("client", info.ID), slog.Any("cause", cause))
	if h.opts.OnDisconnect != nil {
		h.guard("OnDisconnect", func() error { h.opts.OnDisconnect(info, cause); return nil })
	}
}
