package channels

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Identity is who is on the other end, as the app's own middleware found out.
type Identity struct {
	// ID names the user; several connections may share it. DisconnectUser
	// takes it, and presence shows it.
	ID string
	// Info is any JSON that presence shows to others beside the ID.
	Info json.RawMessage
	// Expires is when the identity's connections are closed, with the code
	// "expired" (close code 3000). Zero: never.
	Expires time.Time
	// Value is for the app's own Authorize and hooks; it is never sent.
	Value any
}

func (i *Identity) expired() bool { return !i.Expires.IsZero() && !time.Now().Before(i.Expires) }

type identityKey struct{}

// WithIdentity returns a context that carries id. A middleware around
// hub.Handler passes it on with r.WithContext.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityFrom returns the identity that WithIdentity put into ctx.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// Action is what somebody wants to do.
type Action string

const (
	ActionSubscribe Action = "subscribe"
	ActionPublish   Action = "publish"
	ActionHistory   Action = "history"
	ActionPresence  Action = "presence"
	ActionList      Action = "list" // Request.Channel is the one channel asked for, or empty: the list of channels, or of replicas
)

// Request is what Authorize decides on.
type Request struct {
	Action   Action
	Channel  string
	Identity Identity // zero where the app's middleware gave none
	Client   string   // the connection's id; empty for plain HTTP
}

// Client is one connection, as hooks see it.
type Client struct {
	ID         string // unique over all replicas
	Identity   Identity
	RemoteAddr string // of the TCP connection, as net/http gives it; empty for Go subscribers
	Transport  string // "websocket", "sse" or "go"; for OnReceive also "http" or "bridge"

	// Connected is when the connection's request came. Received and Sent are
	// what it has carried up to the call of the hook: OnDisconnect gets the
	// totals. What is being written when a connection is cut counts as sent.
	Connected      time.Time
	Received, Sent Traffic
}

// Traffic is what a connection has carried in one direction.
type Traffic struct {
	Messages int64 // errors, acknowledgements and what else the hub says, too
	Bytes    int64 // of the socket without TLS, or of the stream of events: with framing, pings and compression, without the HTTP handshake
}

// The values of Client.Transport.
const (
	transportWebSocket = "websocket"
	transportSSE       = "sse"
	transportGo        = "go"
	transportHTTP      = "http"
	transportBridge    = "bridge"
)

// Publication is a message on its way, as OnPublish sees it.
type Publication struct {
	Channel  string
	Message  Message // Header and Body may be changed
	Identity Identity
	Client   string // the publishing connection's id; empty for HTTP and Go
	Network  bool   // false where the app's own Go code publishes

	allowed bool // mayPublish was asked before the message was read
}

// authorize asks the app whether somebody from the network may do something.
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

// charge asks the app whether somebody from the network may send a message now,
// before anything is done for it.
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

func (h *Hub) authorizeHTTP(r *http.Request, a Action, channel string) error {
	id, _ := IdentityFrom(r.Context())
	return h.authorize(r.Context(), Request{Action: a, Channel: channel, Identity: id})
}
