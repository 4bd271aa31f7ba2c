package channels

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Action is what a client wants to do.
type Action string

const (
	ActionSubscribe Action = "subscribe"
	ActionPublish   Action = "publish"
	ActionHistory   Action = "history"
	ActionPresence  Action = "presence"
	ActionList      Action = "list" // of one channel's numbers; or, with an empty Request.Channel, of all channels or all replicas
)

// Request is what Authorize decides on.
type Request struct {
	Action   Action
	Channel  string
	Identity Identity // zero if the app's middleware set none
	Client   string   // the connection's id; empty for plain HTTP

	// Pattern says that Channel is not a name but a pattern of names, in which
	// "*" and "?" match any text and any character, and "[a-z]" a character of a
	// set. To allow it is to allow every channel that it matches, except for users'
	// channels (see UserChannel): a client's pattern never matches one.
	Pattern bool
	// Token is what a client of the client protocol has sent with its
	// subscription, as proof that it may have it: up to 8 KiB, of any form. It is
	// empty for all others. After a refresh
	// of the connection, Authorize is asked again with the same Token, unless it
	// has called Until for it: then the subscription depends on that alone.
	Token string
	// Until is for an Authorize whose permission ends by itself. It says when that
	// is. A connection of one channel is closed then, as it is by Identity.Expires; a
	// stream of several channels loses that one.
	// A subscription of the client protocol ends 25 s later, unless the client
	// has got a new permission by then, with another Token or, if it has sent
	// none, by a refresh of its connection. Call Until before Authorize returns;
	// the earliest of several times counts, and the zero Time is ignored. It is
	// nil where nothing begins that could be ended: for all other actions, and
	// for the plain GET of a channel.
	Until func(time.Time)
}

// authorize asks the app whether a client may do something. What another user's channel
// keeps to its user, it refuses without asking.
func (h *Hub) authorize(ctx context.Context, r Request) error { return h.decide(ctx, &r) }

// decide is authorize. Request is too large to be copied from call to call, on the stack
// of each connection's goroutine.
func (h *Hub) decide(ctx context.Context, r *Request) error {
	if r.Identity.expired() {
		return ErrExpired
	}
	if err := r.mayReach(); err != nil {
		return err
	}
	if h.opts.Authorize == nil {
		return nil
	}
	return h.askApp(ctx, r)
}

func (h *Hub) askApp(ctx context.Context, r *Request) error {
	err := h.guard("Authorize", func() error { return h.opts.Authorize(ctx, *r) })
	if err == nil {
		return nil
	}
	return h.refusal("Authorize", fmt.Errorf("%s %q by user %q: %w", r.Action, r.Channel, r.Identity.ID, err))
}

// authorizeUntil is authorize for a subscription. It also returns when the right to
// it ends; the zero time is never.
func (h *Hub) authorizeUntil(ctx context.Context, r *Request) (time.Time, error) {
	if h.opts.Authorize == nil { // nothing is allocated
		return time.Time{}, h.decide(ctx, r)
	}
	var until time.Time
	r.Until = func(t time.Time) {
		if !t.IsZero() && (until.IsZero() || t.Before(until)) {
			until = t
		}
	}
	if err := h.decide(ctx, r); err != nil {
		return time.Time{}, err
	}
	if !until.IsZero() && !time.Now().Before(until) {
		return time.Time{}, ErrExpired
	}
	return until, nil
}

func (h *Hub) authorizeHTTP(r *http.Request, a Action, channel string) error {
	id, _ := IdentityFrom(r.Context())
	return h.authorize(r.Context(), Request{Action: a, Channel: channel, Identity: id})
}

// charge calls OnReceive, which may refuse a client's message before anything is
// done for it.
func (h *Hub) charge(ctx context.Context, c Client) error {
	if h.opts.OnReceive == nil {
		return nil
	}
	if err := h.guard("OnReceive", func() error { return h.opts.OnReceive(ctx, c) }); err != nil {
		return h.refusal("OnReceive", err)
	}
	return nil
}

func (h *Hub) chargeHTTP(r *http.Request) error {
	if h.opts.OnReceive == nil {
		return nil
	}
	id, _ := IdentityFrom(r.Context())
	return h.charge(r.Context(), Client{Identity: id, RemoteAddr: r.RemoteAddr, Transport: transportHTTP})
}
