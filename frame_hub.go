package channels

import (
	"encoding/json"
	"time"

	"github.com/coder/websocket"

	"github.com/channels-go/channels/internal/fanout"
)

// A notice is what a frame of the hub's own means for the subscriber, besides its
// text.
type notice struct {
	err     error     // what Go subscribers get, or nil
	channel string    // that it is about, or ""
	at      *Position // where the subscriber is after it; nil if it says nothing of that
}

// Channel is as that of a message.
func (n *notice) Channel() string { return n.channel }

// AppendID is as that of a message.
func (n *notice) AppendID(b []byte) []byte { return n.at.appendID(b) }

// AppendReply appends nothing: a session says by itself what concerns it
// (connect_codes.go, subscription.resetLocked).
func (n *notice) AppendReply(b []byte, _ bool) []byte { return b }

// The WebSocket close codes that the hub uses. 3000 and above are from
// IANA's registry of close codes.
const (
	closeGoingAway    websocket.StatusCode = 1001
	closeProtocol     websocket.StatusCode = 1002
	closeBadText      websocket.StatusCode = 1007
	closePolicy       websocket.StatusCode = 1008
	closeTooBig       websocket.StatusCode = 1009
	closeInternal     websocket.StatusCode = 1011
	closeTryAgain     websocket.StatusCode = 1013
	closeUnauthorized websocket.StatusCode = 3000
	closeForbidden    websocket.StatusCode = 3003
)

// farewell tells a client why its connection ends: by a message, which all
// formats can carry, and by the code and reason of the close frame.
func farewell(e *Error, code websocket.StatusCode) []*fanout.Frame {
	said := newErrorFrame(e, nil)
	said.Value = &notice{err: e}
	return []*fanout.Frame{said, newCloseFrame(code, e.Code)}
}

// newCloseFrame ends a connection of one channel with this code, and a session with
// what the client protocol has for the reason.
func newCloseFrame(code websocket.StatusCode, reason string) *fanout.Frame {
	f := fanout.NewClose(uint16(code), reason)
	sessionEnd(reason).of(f)
	return f
}

// newHubFrame makes what the hub itself says: {"header":…,"body":…}.
func newHubFrame(header string, body map[string]int64) *fanout.Frame {
	b := hubText(header, body)
	return fanout.NewText(len(b), func(to []byte) []byte { return append(to, b...) })
}

func hubText(header string, body map[string]int64) []byte {
	b, _ := json.Marshal(body) // numbers cannot fail
	return appendMessage(nil, header, b, nil)
}

// newHeartbeatFrame is a ping that scripts see too.
func newHeartbeatFrame(period time.Duration) *fanout.Frame {
	return fanout.NewHeartbeat(headerPing, hubText(headerPing, map[string]int64{"every_ms": period.Milliseconds()}))
}

// newErrorFrame tells a client what was refused; id is that of its message.
func newErrorFrame(e *Error, id json.RawMessage) *fanout.Frame {
	body, _ := json.Marshal(map[string]string{"code": e.Code, "msg": e.Message}) // strings cannot fail
	return newAnswerFrame(headerError, body, id)
}

func newAnswerFrame(header string, body, id json.RawMessage) *fanout.Frame {
	return fanout.NewText(len(body)+len(id)+48, func(b []byte) []byte {
		b = append(appendHead(b, "", header), body...)
		if id != nil {
			b = append(append(b, `,"id":`...), id...)
		}
		return append(b, '}')
	})
}

// newExchangeFrame acknowledges a publish, with the message's position if it has
// one.
func newExchangeFrame(res Result, id json.RawMessage) *fanout.Frame {
	body := exchangeOK
	if res.Position != (Position{}) {
		body = appendPublished(make([]byte, 0, 96), "msg", res)
	}
	return newAnswerFrame(headerExchange, body, id)
}

var exchangeOK = []byte(`{"msg":"ok"}`)

// newPlaceFrame tells an event stream where it begins, so that the browser can
// resume from there. No event comes of it.
func newPlaceFrame(pos Position) *fanout.Frame {
	return &fanout.Frame{Kind: fanout.Place, Value: &notice{at: &pos}}
}

// newJoinedFrame tells a client of a WebSocket the same, as a message.
func newJoinedFrame(pos Position) *fanout.Frame {
	return fanout.NewText(128, func(b []byte) []byte { return appendMessage(b, headerExchange, joinedBody, &pos) })
}

var joinedBody = []byte(`{"msg":"joined"}`)

// tellPlace tells a client where its subscription begins, if it wants to know.
func (s *subscription) tellPlace(pos Position) {
	switch {
	case s.out.Format.Placed():
		s.out.Send(newPlaceFrame(pos), fanout.Close)
	case s.client.placed:
		s.out.Send(newJoinedFrame(pos), fanout.Close)
	}
}

// newResetFrame says that messages up to pos can no longer be had. pos is nil if
// the channel has no positions.
func newResetFrame(channel, reason string, pos *Position) *fanout.Frame {
	body, _ := json.Marshal(map[string]string{"reason": reason})
	f := fanout.NewText(len(body)+96, func(b []byte) []byte { return appendMessage(b, headerReset, body, pos) })
	e := &ResetError{Reason: reason}
	if pos != nil {
		e.Position = *pos
	}
	f.Value = &notice{err: e, channel: channel, at: pos}
	return f
}

// reasonOf is the reason of a reset.
func reasonOf(reset *fanout.Frame) string { return reset.Value.(*notice).err.(*ResetError).Reason }
