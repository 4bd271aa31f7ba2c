package channels

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// Client is one connection, as hooks see it.
type Client struct {
	ID         string // unique over all replicas
	Identity   Identity
	RemoteAddr string // of the TCP connection, as net/http gives it; empty for Go subscribers
	Transport  string // "websocket", "sse" or "go"; for OnReceive also "http" or "bridge"

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
	transportGo        = "go"
	transportHTTP      = "http"
	transportBridge    = "bridge"
)

// Traffic is what a connection has carried in one direction.
type Traffic struct {
	Messages int64 // with errors, acknowledgements and the hub's other messages
	Bytes    int64 // on the socket (before TLS) or in the event stream: with framing, pings and compression, without the HTTP handshake
}

// Publication is a message on its way, as OnPublish sees it.
type Publication struct {
	Channel  string
	Message  Message // Header and Body may be changed
	Identity Identity
	Client   string // the publishing connection's id; empty for HTTP and Go
	Network  bool   // false if the app's own Go code publishes

	allowed bool // mayPublish was asked before the message was read
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

// guard calls the app's code, or a Store's or Mesh's. It turns a panic into an
// error and logs the stack.
func (h *Hub) guard(name string, f func() error) error { return guard(h.log, name, f) }

func guard(log *slog.Logger, name string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			log.Error("panic in "+name, "panic", r, "stack", string(debug.Stack()))
			err = &panicked{ErrInternal.because(fmt.Errorf("panic in %s: %v", name, r))}
		}
	}()
	return f()
}

// panicked is an ErrInternal that also ends the connection that it happened on.
type panicked struct{ err *Error }

func (p *panicked) Error() string { return p.err.Error() }

func (p *panicked) Unwrap() error { return p.err }

// refusal is what a client gets for a hook's error: the error itself if it is an
// *Error, and "forbidden" otherwise.
func (h *Hub) refusal(hook string, err error) error {
	var crash *panicked
	if errors.As(err, &crash) {
		return crash
	}
	h.log.Debug("refused", "by", hook, "err", err)
	return visible(err, ErrForbidden)
}
