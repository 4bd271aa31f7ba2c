package channels

import (
	"encoding/json"
	"strconv"

	"github.com/channels-go/channels/internal/fanout"
)

// A frame is a message of a channel, or an event of presence, encoded once for
// all its subscribers. What the hub itself says to a client is a fanout.Frame
// alone, with a notice for Go subscribers if it concerns them.
type frame struct {
	fanout.Frame
	message liveMessage
	channel *channel // sessions get its name with each frame
	except  string   // the id of the connection that does not get it, or ""
}

// A liveMessage is a Message without its Time, which only History shows: each
// message makes a frame, so the room for it counts.
type liveMessage struct {
	Header    string
	Body      json.RawMessage
	Position  Position
	Publisher *Publisher
}

func (m *liveMessage) whole() Message {
	return Message{Header: m.Header, Body: m.Body, Position: m.Position, Publisher: m.Publisher}
}

func liveOf(m *Message) *liveMessage {
	return &liveMessage{m.Header, m.Body, m.Position, m.Publisher}
}

// newMessageFrame encodes m. The frame does not keep m.Body: the Body of its message
// is a part of the encoded text. The text does not have the publisher.
func newMessageFrame(ch *channel, m Message) *frame {
	f := &frame{message: *liveOf(&m), channel: ch}
	f.Kind, f.Group, f.Value, f.Beside = fanout.Message, &ch.group, f, uint32(m.Publisher.size())
	if m.Header == headerPresence {
		f.Kind = fanout.Event
	}
	f.encode("", f.at())
	return f
}

// encode makes the text, and has the frame's message share its memory. The channel and
// the position may be left out.
func (f *frame) encode(channel string, at *Position) {
	m := &f.message
	size := fanout.HeaderRoom + len(`{"header":"","body":}`) + len(m.Header) + len(m.Body)
	if at != nil {
		size += len(`,"offset":18446744073709551615,"epoch":""`) + len(at.Epoch)
	}
	if channel != "" {
		size += len(`"channel":"",`) + len(channel)
	}
	b := make([]byte, fanout.HeaderRoom, size)
	b = appendHead(b, channel, m.Header)
	from := len(b)
	b = append(b, m.Body...)
	to := len(b)
	b = appendTail(b, at)
	f.SetText(b)
	m.Body = b[from:to:to]
}

// at is where the channel is after the message; nil if it has no position.
func (f *frame) at() *Position {
	if f.message.Position == (Position{}) {
		return nil
	}
	return &f.message.Position
}

// offset is the message's place in the history, or 0 if it has none.
func (f *frame) offset() uint64 { return f.message.Position.Offset }

// isFrom reports whether a subscriber does not get the frame because it has
// sent the message.
func (f *frame) isFrom(s *subscription) bool { return f.except != "" && f.except == s.id }

// AppendID is for the event stream, from whose last id a browser resumes.
func (f *frame) AppendID(b []byte) []byte { return f.at().appendID(b) }

// appendID appends the id of a server-sent event, or nothing if p is nil.
func (p *Position) appendID(b []byte) []byte {
	if p == nil {
		return b
	}
	b = append(append(b, p.Epoch...), ':')
	return strconv.AppendUint(b, p.Offset, 10)
}
