package channels

import (
	"errors"
	"net/http"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/fanout"
)

// A closing is why a session ends, in the client protocol: its close code, and a
// reason. Clients come back after 3000 to 3499, and stay away after 3500 to 3999. So
// what passes by itself never has a code of the second kind, nor the other way round.
type closing struct {
	code   uint16
	reason string
}

var (
	endShutdown = closing{3001, "shutdown"}
	endInternal = closing{3004, "internal server error"}
	endExpired  = closing{3005, "connection expired"}
	endSlow     = closing{3008, "slow"}
	endMissed   = closing{3010, "insufficient state"}
	endNoPong   = closing{3012, "no pong"}

	endBadToken     = closing{3500, "invalid token"}
	endBadRequest   = closing{3501, "bad request"}
	endStale        = closing{3502, "stale"}
	endDisconnected = closing{3503, "force disconnect"}
	endNotAvailable = closing{3508, "not available"}
)

// sessionEnd is what a session gets for the reason of a close frame, which mostly is
// an Error's code.
func sessionEnd(reason string) closing {
	switch reason {
	case ErrDraining.Code, ErrClosed.Code:
		return endShutdown
	case ErrExpired.Code:
		return endExpired
	case ErrSlowSubscriber.Code, errTooSlow.Code:
		return endSlow
	case ErrDisconnected.Code:
		return endDisconnected
	case reasonBadText, reasonBadFrame:
		return endBadRequest
	}
	return endInternal
}

// of makes a frame end sessions with this code.
func (e closing) of(f *fanout.Frame) {
	f.EndClients(e.code, e.reason)
	f.Value = e
}

// frames are the last ones of a session that ends in this way.
func (e closing) frames() []*fanout.Frame {
	f := fanout.NewClose(e.code, e.reason)
	e.of(f)
	return []*fanout.Frame{f}
}

// Channel is empty.
func (e closing) Channel() string { return "" }

// AppendID appends nothing.
func (e closing) AppendID(b []byte) []byte { return b }

// AppendReply is for streams, which have no close frames.
func (e closing) AppendReply(b []byte, protobuf bool) []byte {
	return clientproto.AppendPush(b, formatOf(protobuf), &clientproto.Push{
		Disconnect: &clientproto.Disconnect{Code: uint32(e.code), Reason: e.reason}})
}

// An unsubscribing is why the server ends a subscription. From 2500 on, the client
// subscribes again.
type unsubscribing struct {
	code   uint32
	reason string
}

var (
	unsubscribedByServer = unsubscribing{2000, "server unsubscribe"}
	unsubscribedMissed   = unsubscribing{2500, "insufficient state"}
	unsubscribedExpired  = unsubscribing{2501, "expired"}
)

// The codes of errors in the client protocol.
const (
	codeInternal      = 100
	codeUnauthorized  = 101
	codeForbidden     = 103
	codeNoMethod      = 104
	codeSubscribed    = 105
	codeLimit         = 106
	codeBadRequest    = 107
	codeNotAvailable  = 108
	codeExpired       = 109
	codeRateLimited   = 111
	codeUnrecoverable = 112
)

// replyError is what the client is told about err.
func replyError(err error) *clientproto.Error {
	e := visible(err, ErrInternal)
	r := &clientproto.Error{Message: e.Message}
	switch e.Code {
	case ErrExpired.Code:
		r.Code, r.Temporary = codeExpired, e.passes()
	case ErrNoHistory.Code, ErrNoPresence.Code, errUnserved.Code:
		r.Code = codeNotAvailable
	case ErrNoMethod.Code:
		r.Code = codeNoMethod
	case errSubscribed.Code:
		r.Code = codeSubscribed
	case errTooManySubscriptions.Code:
		r.Code = codeLimit
	case errUnrecoverable.Code:
		r.Code = codeUnrecoverable
	default:
		r.Code, r.Temporary = codeByStatus(e.status())
	}
	return r
}

// codeByStatus is for the errors that the client protocol has no code for, such as
// those of the app's own code.
func codeByStatus(status int) (code uint32, temporary bool) {
	switch {
	case status == http.StatusTooManyRequests:
		return codeRateLimited, true
	case status >= 500:
		return codeInternal, true
	case status == http.StatusUnauthorized:
		return codeUnauthorized, false
	case status == http.StatusForbidden:
		return codeForbidden, false
	}
	return codeBadRequest, false
}

// isPanic reports whether err is a panic of the app's code, which ends a connection.
func isPanic(err error) bool { return errors.As(err, new(*panicked)) }

func formatOf(protobuf bool) clientproto.Format {
	if protobuf {
		return clientproto.Protobuf
	}
	return clientproto.JSON
}
