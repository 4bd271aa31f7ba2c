package fanout

// The client protocol carries many channels over one connection, and has an encoding
// of its own, in JSON or Protobuf. What a frame says in it is one reply, which its
// Value appends; in Protobuf it begins with its length. Here is only what stands around
// a reply on the wire.

// clientFormats is how many of the Formats are the client protocol's.
const clientFormats = int(ClientDelimited-ClientJSON) + 1

// Protobuf reports whether a format's replies are Protobuf.
func (as Format) Protobuf() bool { return as == ClientProtobuf || as == ClientDelimited }

// overSocket reports whether one of the client protocol's formats is that of a WebSocket.
func (as Format) overSocket() bool { return as == ClientJSON || as == ClientProtobuf }

// clientPings are the pings: an empty reply, in each format.
var clientPings = func() (all [clientFormats][]byte) {
	for i := range all {
		as := ClientJSON + Format(i)
		b := append(make([]byte, ReplyRoom, ReplyRoom+8), "{}"...)
		if as.Protobuf() {
			b = append(b[:ReplyRoom], 0)
		}
		all[i] = putAround(as, b)
	}
	return all
}()

// ReplyRoom is the room for what comes before a reply on the wire.
const ReplyRoom = HeaderRoom

// putAround completes a reply that stands behind ReplyRoom free bytes, without a copy.
func putAround(as Format, b []byte) []byte {
	const data = "data: "
	from := ReplyRoom
	switch as {
	case ClientJSON:
		_, b = putHeader(b, opText)
		return b
	case ClientProtobuf:
		_, b = putHeader(b, opBinary)
		return b
	case ClientEvents:
		from -= len(data)
		copy(b[from:], data)
		b = append(b, "\n\n"...)
	case ClientLines:
		b = append(b, '\n')
	}
	return b[from:]
}

// NewReply returns a frame for one receiver, in its format, which is one of the
// client protocol's. It takes b, whose reply stands behind ReplyRoom free bytes.
func NewReply(as Format, b []byte) *Frame {
	return &Frame{format: as, head: 1, ws: putAround(as, b)} // a head, since it is no control frame
}

// EndClients sets the close frame that ends a connection of the client protocol, which
// has codes of its own. An event stream or an HTTP stream gets what the Value appends.
func (f *Frame) EndClients(code uint16, reason string) {
	end := NewClose(code, reason).ws
	forms := &f.otherForms().clients
	forms[0].Store(&end)
	forms[ClientProtobuf-ClientJSON].Store(&end)
}

// client encodes the frame in one of the client protocol's formats.
func (f *Frame) client(as Format) []byte {
	i := as - ClientJSON
	if f == Ping {
		return clientPings[i]
	}
	if forms := f.others.Load(); forms != nil {
		if b := forms.clients[i].Load(); b != nil {
			return *b
		}
	}
	switch {
	case as.overSocket() && f.head == 0 && f.Value == nil:
		return f.ws // of the WebSocket's own
	case f.Value == nil:
		return nil
	}
	return f.once(&f.otherForms().clients[i], func() []byte {
		b := make([]byte, ReplyRoom, len(f.ws)+ReplyRoom+64)
		if b = f.Value.AppendReply(b, as.Protobuf()); len(b) == ReplyRoom {
			return nil
		}
		return putAround(as, b)
	})
}
