package channels

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// Error is an error that a client may see: a stable code for programs, and a
// sentence that names what was wrong and what is allowed. The README lists
// all codes. What the app's own Authorize and hooks return reaches clients
// only if it is (or wraps) an *Error; anything else is logged, and clients
// get the code "forbidden" or "internal".
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

// passes says that what is refused now may be granted later, without a change
// of the request.
func (e *Error) passes() bool {
	s := e.status()
	return s == http.StatusServiceUnavailable || s == http.StatusTooManyRequests
}

// closeCode is the code with which a WebSocket is closed that is refused.
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

// What callers of the Go API may want to tell apart with errors.Is.
var (
	ErrClosed           = &Error{Code: "closed", Status: http.StatusServiceUnavailable, Message: "the hub is shut down"}
	ErrDraining         = &Error{Code: "draining", Status: http.StatusServiceUnavailable, Message: "this replica is shutting down; connect again"}
	ErrStoreUnavailable = &Error{Code: "store_unavailable", Status: http.StatusServiceUnavailable, Message: "the store does not answer; try again in a moment"}
	ErrMeshUnavailable  = &Error{Code: "mesh_unavailable", Status: http.StatusServiceUnavailable, Message: "the other replicas cannot be reached; try again"}
	ErrTooManyChannels  = &Error{Code: "too_many_channels", Status: http.StatusServiceUnavailable, Message: "as many channels have subscribers on this replica as it may hold; try again later"}
	ErrSlowSubscriber   = &Error{Code: "slow_subscriber", Status: http.StatusServiceUnavailable, Message: "the subscriber reads more slowly than its channels publish; connect again"}
	ErrForbidden        = &Error{Code: "forbidden", Status: http.StatusForbidden, Message: "this is not allowed"}
	ErrExpired          = &Error{Code: "expired", Status: http.StatusUnauthorized, Message: "the credentials have expired; connect again with new ones"}
	ErrDisconnected     = &Error{Code: "disconnected", Status: http.StatusForbidden, Message: "the app has ended this connection"}
	ErrUnsubscribed     = &Error{Code: "unsubscribed", Status: http.StatusForbidden, Message: "the app has ended this subscription"}
	ErrInternal         = &Error{Code: "internal", Status: http.StatusInternalServerError, Message: "an error inside of the server, which its log tells of"}
	ErrBadChannel       = &Error{Code: "bad_channel", Status: http.StatusBadRequest, Message: "this is no channel name; a name has 1 to 200 bytes of UTF-8 without control characters, spaces, /, * or ?"}
	ErrBadMessage       = &Error{Code: "bad_message", Status: http.StatusBadRequest, Message: "this is no message; it has a header, a string, and a body, which is any JSON value"}
	ErrBadUTF8          = &Error{Code: "bad_utf8", Status: http.StatusBadRequest, Message: "the message is not valid UTF-8"}
	ErrTooLarge         = &Error{Code: "too_large", Status: http.StatusRequestEntityTooLarge, Message: "this is longer than Options.MaxMessageBytes, or another bound, allows; send less at once"}
	ErrReservedHeader   = &Error{Code: "reserved_header", Status: http.StatusBadRequest, Message: "only the server sends messages with this header; choose another"}
	ErrBadKey           = &Error{Code: "bad_idempotency_key", Status: http.StatusBadRequest, Message: "this is no idempotency key; a key has 1 to 200 characters of printable ASCII without spaces"}
	ErrKeyReused        = &Error{Code: "key_reused", Status: http.StatusConflict, Message: "this idempotency key was used for another message on this channel; take a new key for each message"}
	ErrBadQuery         = &Error{Code: "bad_query", Status: http.StatusBadRequest, Message: "a parameter is not in its range or form"}
	ErrNoHistory        = &Error{Code: "no_history", Status: http.StatusBadRequest, Message: "this channel keeps no history; Options.Channel gives it one (of the service: -history)"}
	ErrNoPresence       = &Error{Code: "no_presence", Status: http.StatusBadRequest, Message: "this channel keeps no presence; Options.Channel gives it one (of the service: -presence)"}
)

// sendLess is what to do about a message that is too large.
const sendLess = "send less at once, or raise MaxMessageBytes (of the service: -max-message-bytes)"

// Codes of what only comes up on the wire.
var (
	errBadJSON            = &Error{Code: "bad_json", Status: http.StatusBadRequest, Message: "this is not valid JSON"}
	errBinary             = &Error{Code: "binary", Status: http.StatusBadRequest, Message: "binary frames are not taken; send JSON as text"}
	errBadHandshake       = &Error{Code: "bad_handshake", Status: http.StatusBadRequest, Message: "the WebSocket handshake is not as RFC 6455 has it"}
	errUpgrade            = &Error{Code: "upgrade_required", Status: http.StatusUpgradeRequired, Message: "this is a WebSocket or a stream of server-sent events"}
	errNotHijackable      = &Error{Code: "not_hijackable", Status: http.StatusInternalServerError, Message: "no WebSocket can be opened through this server's middleware"}
	errNotFlushable       = &Error{Code: "not_flushable", Status: http.StatusInternalServerError, Message: "no stream can be opened through this server's middleware"}
	errUnfinished         = &Error{Code: "overloaded", Status: http.StatusServiceUnavailable, Message: "this was cut short, since too much that had not come completely waited on this replica, and this had held most for longest; send it again"}
	errTooSlow            = &Error{Code: "too_slow", Status: http.StatusRequestTimeout, Message: "this did not come completely in its time, which is 10 s, and 1 s for each 64 KiB; send it again, at once or in smaller parts"}
	errInflates           = &Error{Code: ErrTooLarge.Code, Status: http.StatusRequestEntityTooLarge, Message: "beyond 64 KiB, a message inflates to at most 100 times what was sent; send it with less or no compression"}
	errBadEncoding        = &Error{Code: "unsupported_encoding", Status: http.StatusUnsupportedMediaType, Message: "compressed bodies are not taken; send the body as it is, without a Content-Encoding"}
	errOverloaded         = &Error{Code: "overloaded", Status: http.StatusServiceUnavailable, Message: "too much waits for slow receivers on this replica; try again later"}
	errBadOrigin          = &Error{Code: "bad_origin", Status: http.StatusForbidden, Message: "pages of this origin may not come here"}
	errBadHost            = &Error{Code: "bad_host", Status: http.StatusMisdirectedRequest, Message: "this server does not answer to that host"}
	errNotFound           = &Error{Code: "not_found", Status: http.StatusNotFound, Message: "there is nothing here"}
	errTooManyConnections = &Error{Code: "too_many_connections", Status: http.StatusServiceUnavailable, Message: "there are as many connections as there may be; try again later"}
	errBadMethod          = &Error{Code: "method_not_allowed", Status: http.StatusMethodNotAllowed, Message: "this method is not allowed here"}
)

// ResetError tells a Go subscriber that messages between its position and
// Position can no longer be had. The subscription goes on after Position.
type ResetError struct {
	Reason   string // see the reset reasons in the README
	Position Position
}

func (e *ResetError) Error() string {
	return "channels: messages were missed (" + e.Reason + "); the subscription goes on after " + e.Position.String()
}

// visible returns what a client may see of err; what it may not is replaced
// by fallback, with err as the cause for the log.
func visible(err error, fallback *Error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return fallback.because(err)
}
