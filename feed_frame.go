package channels

import (
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/fanout"
)

// A feedFrame is a message for the subscribers of one pattern, encoded once for all of
// them. It says which channel it is from. They cannot go on from its place, so its text
// has no position.
type feedFrame struct {
	frame
	feed *feed
	from string // the message's channel
}

// newFeedFrame encodes m. The frame does not keep m.Body.
func newFeedFrame(fd *feed, channel string, m *Message, except *client) *feedFrame {
	f := &feedFrame{frame: frame{except: except}, feed: fd, from: channel}
	f.Kind, f.Group, f.Value, f.Beside = fanout.Message, &fd.group, f, uint32(m.Publisher.size())
	f.encode(make([]byte, textRoom(channel, m)), channel, m)
	return f
}

// whole is the message as Go subscribers get it.
func (f *feedFrame) whole() Message {
	m := f.frame.whole()
	m.Channel = f.from
	return m
}

// AppendID appends nothing, since an event stream could not resume from there.
func (f *feedFrame) AppendID(b []byte) []byte { return b }

// Channel is empty, since the text has it.
func (f *feedFrame) Channel() string { return "" }

// AppendReply appends the frame as the client protocol pushes it: to the pattern, with
// the channel in the tags. Writers call it once for each encoding in use.
func (f *feedFrame) AppendReply(b []byte, protobuf bool) []byte {
	m := f.frame.whole()
	p := publicationOf(&m)
	p.Offset, p.Tags.Channel = 0, f.from
	return clientproto.AppendPublication(b, formatOf(protobuf), f.feed.pattern.String(), &p)
}
