package channels

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/channels-go/channels/internal/fanout"
)

// A frame is a message of a channel, or an event of presence, encoded once for
// all its subscribers. What the hub itself says to a client is a fanout.Frame
// alone, with a notice for Go subscribers if it concerns them.
type frame struct {
	fanout.Frame
	message liveMessage
	channel *channel // sessions get its name with each frame
	except  *client  // who does not get it, or nil
}

// A liveMessage is a Message as its frame keeps it: in less room, since each message
// makes a frame.
type liveMessage struct {
	Header    string
	Position  Position
	Publisher *Publisher
	time      int64  // in milliseconds since 1970, or 0
	from, to  uint32 // where in the frame's text the body stands
}

// body shares the memory of the frame's text.
func (f *frame) body() json.RawMessage {
	m := &f.message
	return f.Text()[m.from:m.to:m.to]
}

// whole is the message as it was published.
func (f *frame) whole() Message {
	m := &f.message
	return Message{Header: m.Header, Body: f.body(), Position: m.Position, Time: timeOf(m.time), Publisher: m.Publisher}
}

// timeOf is the time after so many milliseconds, and millisOf the opposite. 0 is the
// zero Time.
func timeOf(ms int64) (t time.Time) {
	if ms != 0 {
		t = time.UnixMilli(ms)
	}
	return t
}

func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// A shortFrame and a tinyFrame have room for a short text. So most messages make one
// object instead of two. There are two of them, since a queue counts a frame by its text.
type (
	shortFrame struct {
		frame
		room [200]byte
	}
	tinyFrame struct {
		frame
		room [72]byte
	}
)

// newFrame returns a frame and room for its text.
func newFrame(size int) (*frame, []byte) {
	switch {
	case size <= len(tinyFrame{}.room):
		f := new(tinyFrame)
		return &f.frame, f.room[:]
	case size <= len(shortFrame{}.room):
		f := new(shortFrame)
		return &f.frame, f.room[:]
	}
	return new(frame), make([]byte, size)
}

// newMessageFrame encodes m. The frame does not keep m.Body. The text does not have the
// publisher.
func newMessageFrame(ch *channel, m Message) *frame {
	f, room := newFrame(textRoom("", &m))
	f.channel = ch
	f.Kind, f.Group, f.Value, f.Beside = fanout.Message, &ch.group, f, uint32(m.Publisher.size())
	if m.Header == headerPresence {
		f.Kind = fanout.Event
	}
	f.encode(room, "", &m)
	return f
}

// textRoom returns how much room encode needs at most.
func textRoom(channel string, m *Message) int {
	size := fanout.HeaderRoom + len(`{"header":"","body":}`) + len(m.Header) + len(m.Body)
	if channel != "" {
		size += len(`"channel":"",`) + len(channel)
	} else if m.Position != (Position{}) {
		size += len(`,"offset":18446744073709551615,"epoch":""`) + len(m.Position.Epoch)
	}
	if !m.Time.IsZero() {
		size += len(`,"time":1000000000000`)
	}
	return size
}

// encode makes the text in room. It says either the channel, if that is given, or the
// message's position, if it has one.
func (f *frame) encode(room []byte, channel string, m *Message) {
	f.message = liveMessage{Header: m.Header, Position: m.Position, Publisher: m.Publisher, time: millisOf(m.Time)}
	var at *Position
	if channel == "" {
		at = f.at()
	}
	b := appendHead(room[:fanout.HeaderRoom], channel, m.Header)
	f.message.from = uint32(len(b) - fanout.HeaderRoom)
	b = append(b, m.Body...)
	f.message.to = uint32(len(b) - fanout.HeaderRoom)
	f.SetText(appendTail(b, at, f.message.time))
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
func (f *frame) isFrom(s *subscription) bool { return f.except != nil && f.except == s.client }

// AppendID is for the event stream, from whose last id a browser resumes.
func (f *frame) AppendID(b []byte) []byte { return f.at().appendID(b) }

// Channel is for streams of several channels.
func (f *frame) Channel() string { return f.channel.name }

// appendID appends the id of a server-sent event, or nothing if p is nil.
func (p *Position) appendID(b []byte) []byte {
	if p == nil {
		return b
	}
	b = append(append(b, p.Epoch...), ':')
	return strconv.AppendUint(b, p.Offset, 10)
}
