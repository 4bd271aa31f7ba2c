package channels

import (
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/internal/fanout"
)

// defaultHeader is the header of the messages that the client protocol publishes, and
// the one that its publications do not name.
const defaultHeader = "message"

// AppendReply appends the frame as the client protocol pushes it. Writers call it once
// for each encoding in use.
func (f *frame) AppendReply(b []byte, protobuf bool) []byte {
	as := formatOf(protobuf)
	if f.Kind == fanout.Event {
		push := presencePush(f.channel.name, f.body())
		if push == nil {
			return b
		}
		return clientproto.AppendPush(b, as, push)
	}
	m := f.whole()
	p := publicationOf(&m)
	return clientproto.AppendPublication(b, as, f.channel.name, &p)
}

// publicationOf is a message as the client protocol has it. It shares the body.
func publicationOf(m *Message) clientproto.Publication {
	p := clientproto.Publication{Data: m.Body, Offset: m.Position.Offset, Time: millisOf(m.Time)}
	if who := m.Publisher; who != nil {
		p.Info = &clientproto.ClientInfo{User: who.User, Client: who.Client, ConnInfo: who.Info}
	}
	if m.Header != defaultHeader {
		p.Tags.Header = m.Header
	}
	return p
}

func publications(messages []Message) []clientproto.Publication {
	ps := make([]clientproto.Publication, len(messages))
	for i := range messages {
		ps[i] = publicationOf(&messages[i])
	}
	return ps
}

// presencePush makes a push of an event of presence, or nil if another version of the
// hub has sent one that this does not know.
func presencePush(channel string, event []byte) *clientproto.Push {
	var e presenceBody
	if exact.Unmarshal(event, &e) != nil {
		return nil
	}
	push := &clientproto.Push{Channel: channel}
	switch info := memberInfo(&e.Member); e.Event {
	case eventJoin:
		push.Join = &clientproto.Join{Info: info}
	case eventLeave:
		push.Leave = &clientproto.Leave{Info: info}
	default:
		return nil
	}
	return push
}

func memberInfo(m *Member) *clientproto.ClientInfo {
	return &clientproto.ClientInfo{User: m.User, Client: m.ID, ConnInfo: m.Info}
}
