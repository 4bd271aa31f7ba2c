package channels

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// Error is an error that a client may see: a stable code for programs, and a
// sentence that says what was wrong, what is allowed, and what to do. Errors
// that the app's own Authorize and hooks return reach clients only if they are
// (or wrap) an *Error. Other errors are logged, and clients get the code
// "forbidden" or "internal".
//
// These are the codes, with their HTTP statuses. A code without a status comes
// over a connection only. A few have variables, for errors.Is.
//
//	bad_channel           400  the channel's name is not valid
//	bad_message           400  the header or the body is missing or wrong
//	bad_json              400  not valid JSON, or the request's body ended early
//	bad_utf8              400  not valid UTF-8
//	binary                     a binary WebSocket message; send text
//	reserved_header       400  the header is one of the hub's own
//	bad_idempotency_key   400  the key is not valid, or not allowed here
//	key_reused            409  the idempotency key was used for another message
//	bad_query             400  a parameter is wrong or unknown
//	bad_handshake         400  the WebSocket handshake is wrong, or the GET has a body
//	no_history            400  the channel keeps no history
//	no_presence           400  the channel keeps no presence
//	no_token              401  a middleware requires a token (see WithTokenDue)
//	expired               401  Identity.Expires has passed
//	forbidden             403  Authorize, ChannelOptions.Publishers or a hook refused, or it is another user's channel
//	bad_origin            403  the browser's page is of another origin
//	disconnected          403  the app called DisconnectUser or DisconnectClient
//	unsubscribed          403  the app called UnsubscribeUser or UnsubscribeClient
//	not_found             404  there is no such endpoint
//	method_not_allowed    405  the header Allow says which methods are
//	too_slow              408  a body or a message did not arrive completely in time
//	too_large             413  the message, the request or the batch is too large
//	unsupported_encoding  415  the body has a Content-Encoding
//	bad_host              421  Options.Hosts does not name the request's host
//	upgrade_required      426  a plain GET of a channel, or a WebSocket over HTTP/2
//	internal              500  a panic in the app's code, or contradictory channel options
//	not_hijackable        500  a middleware hides Hijack
//	not_flushable         500  a middleware hides Flush
//	closed                503  this replica is shut down
//	draining              503  this replica is about to shut down
//	store_unavailable     503  the Store failed; repeat a publish with a key, as it may have been stored
//	mesh_unavailable      503  the Mesh failed
//	too_many_channels     503  Options.MaxChannels or MaxPatterns
//	too_many_connections  503  Options.MaxConnections or MaxConnectionsPerAddress
//	overloaded            503  Options.MaxQueuedBytes or MaxUnfinishedBytes
//	slow_subscriber            the subscriber's queue was full
//
// These come up in the client protocol only, whose clients get its numbers for codes:
//
//	bad_frame               a frame is broken
//	already_subscribed      the connection is subscribed to the channel
//	too_many_subscriptions  the connection has Options.MaxSubscriptions
//	no_method               there is no such method: see Options.OnCall
//	not_available           a part of the protocol is not served here
//	unrecoverable           the history does not go on from the position
//	no_session              the replica that a request of /emulation names is not there
//
// Package middleware adds bad_token and bad_api_key (401), and rate_limited (429).
type Error struct {
	Code    string // e.g. "bad_channel"
	Message string
	Status  int // the HTTP status; 0 means 403
	cause   error
}

// Error returns the message and, for the log, the cause.
func (e *Error) Error() string {
	if e.cause != nil {
		return "channels: " + e.Message + ": " + e.cause.Error()
	}
	return "channels: " + e.Message
}

// Unwrap returns the cause, which clients never see.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors with the same code equal for errors.Is.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

func (e *Error) status() int {
	if e.Status < 400 || e.Status > 599 { // 0, or what net/http would panic at
		return http.StatusForbidden
	}
	return e.Status
}

// passes reports whether the same request may succeed later.
func (e *Error) passes() bool {
	s := e.status()
	return s == http.StatusServiceUnavailable || s == http.StatusTooManyRequests
}

// closeCode is the close code of a WebSocket that is refused with this error.
func (e *Error) closeCode() websocket.StatusCode {
	switch {
	case e.passes():
		return closeTryAgain
	case e.status() == http.StatusUnauthorized:
		return closeUnauthorized
	case e.status() >= 500:
		return closeInternal
	}
	return closeForbidden
}

// because returns a copy of e with a cause for the log.
func (e *Error) because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// saying returns a copy of e with a message of its own.
func (e *Error) saying(format string, args ...any) *Error {
	c := *e
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// The errors that callers of the Go API may want to tell apart with errors.Is.
var (
	ErrClosed           = &Error{Code: "closed", Status: http.StatusServiceUnavailable, Message: "the hub is shut down"}
	ErrDraining         = &Error{Code: "draining", Status: http.StatusServiceUnavailable, Message: "this replica is shutting down; connect again"}
	ErrStoreUnavailable = &Error{Code: "store_unavailable", Status: http.StatusServiceUnavailable, Message: "the store does not answer; try again in a moment"}
	ErrMeshUnavailable  = &Error{Code: "mesh_unavailable", Status: http.StatusServiceUnavailable, Message: "the other replicas cannot be reached; try again"}
	ErrTooManyChannels  = &Error{Code: "too_many_channels", Status: http.StatusServiceUnavailable, Message: "this replica has reached its limit of channels, and all have subscribers; try again later"}
	ErrSlowSubscriber   = &Error{Code: "slow_subscriber", Status: http.StatusServiceUnavailable, Message: "the subscriber reads more slowly than its channels publish; connect again"}
	ErrForbidden        = &Error{Code: "forbidden", Status: http.StatusForbidden, Message: "this is not allowed"}
	ErrExpired          = &Error{Code: "expired", Status: http.StatusUnauthorized, Message: "the credentials have expired; connect again with new ones"}
	ErrDisconnected     = &Error{Code: "disconnected", Status: http.StatusForbidden, Message: "the app has ended this connection"}
	ErrUnsubscribed     = &Error{Code: "unsubscribed", Status: http.StatusForbidden, Message: "the app has ended this subscription"}
	ErrInternal         = &Error{Code: "internal", Status: http.StatusInternalServerError, Message: "something failed inside the server; its log has the details"}
	ErrBadChannel       = &Error{Code: "bad_channel", Status: http.StatusBadRequest, Message: "this is not a channel name; a name has 1 to 200 bytes of UTF-8 without control characters, spaces, /, * or ?"}
	ErrBadMessage       = &Error{Code: "bad_message", Status: http.StatusBadRequest, Message: "this is not a message; a message has a header, which is a string, and a body, which is any JSON value"}
	ErrBadUTF8          = &Error{Code: "bad_utf8", Status: http.StatusBadRequest, Message: "the message is not valid UTF-8"}
	ErrTooLarge         = &Error{Code: "too_large", Status: http.StatusRequestEntityTooLarge, Message: "this is longer than Options.MaxMessageBytes or another limit allows; send less at once"}
	ErrReservedHeader   = &Error{Code: "reserved_header", Status: http.StatusBadRequest, Message: "only the server sends messages with this header; choose another"}
	ErrBadKey           = &Error{Code: "bad_idempotency_key", Status: http.StatusBadRequest, Message: "this is not an idempotency key; a key has 1 to 200 characters of printable ASCII without spaces"}
	ErrKeyReused        = &Error{Code: "key_reused", Status: http.StatusConflict, Message: "this idempotency key was used for another message on this channel; use a new key for each message"}
	ErrBadQuery         = &Error{Code: "bad_query", Status: http.StatusBadRequest, Message: "a parameter has a value that is not allowed"}
	ErrNoHistory        = &Error{Code: "no_history", Status: http.StatusBadRequest, Message: "this channel keeps no history; Options.Channel gives it one (in example/server: -history)"}
	ErrNoMethod         = &Error{Code: "no_method", Status: http.StatusNotFound, Message: "there is no such method"}
	ErrNoPresence       = &Error{Code: "no_presence", Status: http.StatusBadRequest, Message: "this channel keeps no presence; Options.Channel gives it one (in example/server: -presence)"}
)

// sendLess is what to do about a message that is too large.
const sendLess = "send less at once, or raise MaxMessageBytes (in example/server: -max-message-bytes)"

// The errors that only come up on the wire.
var (
	errBadJSON            = &Error{Code: "bad_json", Status: http.StatusBadRequest, Message: "this is not valid JSON"}
	errBinary             = &Error{Code: "binary", Status: http.StatusBadRequest, Message: "binary messages are not supported; send JSON as text"}
	errBadHandshake       = &Error{Code: "bad_handshake", Status: http.StatusBadRequest, Message: "the WebSocket handshake does not follow RFC 6455"}
	errUpgrade            = &Error{Code: "upgrade_required", Status: http.StatusUpgradeRequired, Message: "this is a WebSocket or a stream of server-sent events"}
	errNotHijackable      = &Error{Code: "not_hijackable", Status: http.StatusInternalServerError, Message: "no WebSocket can be opened through this server's middleware"}
	errNotFlushable       = &Error{Code: "not_flushable", Status: http.StatusInternalServerError, Message: "no stream can be opened through this server's middleware"}
	errUnfinished         = &Error{Code: "overloaded", Status: http.StatusServiceUnavailable, Message: "this was cut short: unfinished requests held too much memory here, and this was one of the largest and oldest; send it again"}
	errTooSlow            = &Error{Code: "too_slow", Status: http.StatusRequestTimeout, Message: "this did not arrive in time (10 s, plus 1 s for each 64 KiB); send it again, faster or in smaller parts"}
	errInflates           = &Error{Code: ErrTooLarge.Code, Status: http.StatusRequestEntityTooLarge, Message: "a message of more than 64 KiB may be at most 100 times as long as its compressed form; send it with less or no compression"}
	errBadEncoding        = &Error{Code: "unsupported_encoding", Status: http.StatusUnsupportedMediaType, Message: "compressed bodies are not supported; send the body as it is, without a Content-Encoding"}
	errOverloaded         = &Error{Code: "overloaded", Status: http.StatusServiceUnavailable, Message: "too much is waiting for slow receivers on this replica; try again later"}
	errNoToken            = &Error{Code: "no_token", Status: http.StatusUnauthorized, Message: "this needs a token with the request itself; a token in a connect command is only read at the paths of the client protocol, and if Options.Authenticate is set"}
	errBadOrigin          = &Error{Code: "bad_origin", Status: http.StatusForbidden, Message: "pages of this origin are not allowed here"}
	errBadHost            = &Error{Code: "bad_host", Status: http.StatusMisdirectedRequest, Message: "this server does not answer to that host"}
	errNotFound           = &Error{Code: "not_found", Status: http.StatusNotFound, Message: "there is nothing here"}
	errTooManyConnections = &Error{Code: "too_many_connections", Status: http.StatusServiceUnavailable, Message: "the limit of connections is reached; try again later"}
	errBadFrame           = &Error{Code: "bad_frame", Status: http.StatusBadRequest, Message: "this is not a frame of the client protocol"}
	errSubscribed         = &Error{Code: "already_subscribed", Status: http.StatusConflict, Message: "this connection is subscribed to the channel already"}
	errUnsubscribing      = &Error{Code: ErrUnsubscribed.Code, Status: http.StatusServiceUnavailable, Message: "the subscription to this channel is about to end; subscribe again in a moment"}
	errUnserved           = &Error{Code: "not_available", Status: http.StatusNotImplemented, Message: "this is not served here"}
	errUnrecoverable      = &Error{Code: "unrecoverable", Status: http.StatusGone, Message: "the history does not go on from this position: it is of another epoch, or messages after it are no longer kept"}

	errOldToken = &Error{Code: ErrExpired.Code, Status: http.StatusServiceUnavailable, Message: "the new token has expired already; send another"}

	errNoSession = &Error{Code: "no_session", Status: http.StatusNotFound, Message: "the replica that had this session is not there; connect again"}

	errTooManySubscriptions = &Error{Code: "too_many_subscriptions", Status: http.StatusForbidden, Message: "the connection has reached its limit of subscriptions"}

	errBadMethod = &Error{Code: "method_not_allowed", Status: http.StatusMethodNotAllowed, Message: "this method is not allowed here"}
)

// ResetError tells a Go subscriber that it has missed messages up to Position,
// and that they cannot be fetched any more. The subscription goes on after
// Position. Clients get the same as a message with the header "reset".
type ResetError struct {
	// Reason is why:
	//   - "trimmed": the messages are no longer kept, by HistorySize or
	//     HistoryTTL, or somebody has removed them from the Store
	//   - "epoch": the Store has lost the history, or its newest messages
	//   - "no_history": the channel keeps no history, so a position is of no use
	Reason   string
	Position Position
}

func (e *ResetError) Error() string {
	return "channels: messages were missed (" + e.Reason + "); the subscription goes on after " + e.Position.String()
}

// visible returns what a client may see of err. An error that is not for
// clients becomes the cause of fallback, for the log.
func visible(err error, fallback *Error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return fallback.because(err)
}
