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

	// Token is what the client has sent with this subscription, over the client
	// protocol. It may be empty.
	Token string
	// Until, if it is not nil, may be called to say when the right to the
	// subscription ends. The client then has to send another token before that time.
	// If it does not within 25 s after it, the subscription ends.
	Until func(time.Time)
}

// authorize asks the app whether a client may do something.
func (h *Hub) authorize(ctx context.Context, r Request) error {
	if r.Identity.expired() {
		return ErrExpired
	}
	if h.opts.Authorize == nil {
		return nil
	}
	err := h.guard("Authorize", func() error { return h.opts.Authorize(ctx, r) })
	if err == nil {
		return nil
	}
	return h.refusal("Authorize", fmt.Errorf("%s %q by user %q: %w", r.Action, r.Channel, r.Identity.ID, err))
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
