package fanout

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A Frame is one thing to be written, encoded once for all its receivers, and
// at most once for each format. It does not change once it was sent, so any
// number of queues may hold it. The exported fields are set before that.
type Frame struct {
	Kind   Kind
	Last   bool   // nothing may follow it: a close frame, the end of a stream
	head   uint8  // how long the header of ws is if a text follows; 0 for a control frame
	format Format // that ws is in: WebSocket, unless it is a reply of the client protocol
	Beside uint32 // bytes that Value holds besides the text, which count in a queue
	Group  *Group // of a Message or an Event, nil for all else
	Value  Value  // the sender's part, or nil

	ws []byte // the WebSocket frame

	waiting  atomic.Int32  // in how many outboxes it waits: see hold
	start    atomic.Uint32 // a Start, or 0; it fills a hole between its neighbours
	encoding sync.Mutex    // held while one of those below is made
	deflated atomic.Pointer[[]byte]
	sse      atomic.Pointer[[]byte]
	others   atomic.Pointer[otherForms] // nil until a receiver wants one of them
}

// otherForms are a frame in the formats that most frames are never wanted in, as far as
// it was encoded.
type otherForms struct {
	clients [clientFormats]atomic.Pointer[[]byte]
	pages   atomic.Pointer[pageForms] // apart, so that sessions do not pay for it
}

// otherForms returns those of the frame, even if there are none yet.
func (f *Frame) otherForms() *otherForms {
	if forms := f.others.Load(); forms != nil {
		return forms
	}
	f.others.CompareAndSwap(nil, new(otherForms))
	return f.others.Load()
}

// A Kind says how a Frame counts in a queue that is full or ends.
type Kind uint8

const (
	Said    Kind = iota // what the server says to one receiver: an answer, a farewell
	Message             // a Group's message
	Event               // a Group's event, which is dropped rather than end a connection
	Place               // it only tells an event stream where it begins, and is kept when what waits is dropped
	Pong                // only the newest one counts
)

// A Value is the sender's part of a Frame. A receiver that takes one frame at a
// time gets it back: see Outbox.Next.
type Value interface {
	// AppendID appends the id of the server-sent event, or nothing if it has none.
	AppendID(b []byte) []byte
	// AppendReply appends what the frame says in the client protocol, or nothing.
	AppendReply(b []byte, protobuf bool) []byte
	// Channel is the name of the channel that the frame is of; it is empty if the frame is
	// of none, or if its text says which.
	Channel() string
}

// A Format is how a receiver wants its frames.
type Format uint8

const (
	WebSocket Format = iota
	Deflate          // WebSocket frames with permessage-deflate, without context takeover
	SSE              // server-sent events
	Values           // no bytes: it takes the frames' Values

	// The client protocol (client.go).
	ClientJSON      // WebSocket frames of text
	ClientProtobuf  // binary WebSocket frames
	ClientEvents    // JSON as server-sent events
	ClientLines     // JSON, a line for each
	ClientDelimited // Protobuf, each with its length before it

	// For pages (page.go).
	Named         // server-sent events that are named after their headers, with the bodies alone
	Channels      // SSE with the channel in the text, and without an id: its writer adds one
	ChannelsNamed // Named without an id

	// As WebSocket, Deflate and SSE, but messages are their bodies alone.
	Bodies
	BodiesDeflate
	BodyEvents
)

// frameOverhead is about what a queued frame costs besides its bytes, so that
// millions of tiny frames are bounded too.
const frameOverhead = 64

// WebSocket opcodes, RFC 6455 section 11.8, with the FIN bit.
const (
	opText   = 0x80 | 0x1
	opBinary = 0x80 | 0x2
	OpClose  = 0x80 | 0x8
	opPing   = 0x80 | 0x9
	OpPong   = 0x80 | 0xA
	rsv1     = 0x40 // RFC 7692: the message is deflated
)

// appendHeader appends the header of an unmasked (server to client) frame.
func appendHeader(b []byte, first byte, n int) []byte {
	b = append(b, first)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
}

// HeaderRoom is the length of the longest header of a WebSocket frame.
const HeaderRoom = 10

// NewText returns a frame with the text that build appends, which has about
// sizeHint bytes.
func NewText(sizeHint int, build func([]byte) []byte) *Frame {
	f := &Frame{}
	f.SetText(build(make([]byte, HeaderRoom, HeaderRoom+sizeHint)))
	return f
}

// SetText takes b, whose text stands behind HeaderRoom free bytes.
func (f *Frame) SetText(b []byte) { f.head, f.ws = putHeader(b, opText) }

// putHeader sets the header right before the text that stands behind HeaderRoom
// free bytes, so that there is one allocation and no copy. It returns the header's
// length and the frame.
func putHeader(b []byte, first byte) (uint8, []byte) {
	var head [HeaderRoom]byte
	h := appendHeader(head[:0], first, len(b)-HeaderRoom)
	b = b[HeaderRoom-len(h):]
	copy(b, h)
	return uint8(len(h)), b
}

// Text is nil for a control frame. It must not be changed.
func (f *Frame) Text() []byte {
	if f.head == 0 {
		return nil
	}
	return f.ws[f.head:]
}

// newControl returns a control frame.
func newControl(op byte, payload []byte) *Frame {
	return &Frame{ws: append(appendHeader(nil, op, len(payload)), payload...)}
}

// Ping is a WebSocket ping, and a comment on an event stream. It is shared by all
// engines, so no counter counts it.
var Ping = newControl(opPing, nil)

// NewPong answers a client's ping.
func NewPong(payload []byte) *Frame {
	f := newControl(OpPong, payload)
	f.Kind = Pong
	return f
}

// NewClose ends a connection. The reason is cut to what fits into a frame.
func NewClose(code uint16, reason string) *Frame {
	if len(reason) > 123 { // RFC 6455 section 5.5: 125 with the code
		reason = reason[:123]
	}
	f := newControl(OpClose, append(binary.BigEndian.AppendUint16(nil, code), reason...))
	f.Last = true
	return f
}

// NewLast ends a connection with a close frame that is encoded already. It
// copies the bytes.
func NewLast(closeFrame []byte) *Frame { return &Frame{ws: bytes.Clone(closeFrame), Last: true} }

// NewHeartbeat returns a ping that scripts see too. A WebSocket gets the text as
// well, and an event stream an event of its own type, which does not come to
// onmessage.
func NewHeartbeat(event string, text []byte) *Frame {
	said := NewText(len(text), func(b []byte) []byte { return append(b, text...) })
	f := &Frame{ws: append(bytes.Clone(Ping.ws), said.ws...)}
	sse := fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, text)
	f.sse.Store(&sse)
	named := said.page(Named)
	forms := f.pageForms()
	forms[0].Store(&named)
	forms[Channels-Named].Store(&sse)
	forms[ChannelsNamed-Named].Store(&named)
	return f
}

// Bytes returns the frame in a format. The result is empty if the frame has
// nothing to say there.
func (f *Frame) Bytes(as Format) []byte {
	switch {
	case as == f.format:
	case as == Deflate:
		if f.worthDeflating(f.Text()) {
			return f.once(&f.deflated, func() []byte { return f.deflate(f.Text(), f.ws) })
		}
	case as == SSE:
		return f.once(&f.sse, func() []byte { return f.event(true, appendData) })
	case as >= Named:
		return f.page(as)
	case as >= ClientJSON:
		return f.client(as)
	}
	return f.ws
}

// worthDeflating reports whether a text of the frame is long enough.
func (f *Frame) worthDeflating(text []byte) bool {
	return f.Group != nil && len(text) >= f.Group.engine.config.CompressBytes
}

// once returns what make makes the first time. All writers begin with a new
// frame at the same moment: without the lock, each would make its own.
func (f *Frame) once(p *atomic.Pointer[[]byte], make func() []byte) []byte {
	if b := p.Load(); b != nil {
		return *b
	}
	f.encoding.Lock()
	defer f.encoding.Unlock()
	if b := p.Load(); b != nil {
		return *b
	}
	b := make()
	p.Store(&b)
	return b
}

// Size is what the frame counts for in a queue.
func (f *Frame) Size() int { return len(f.ws) + int(f.Beside) + frameOverhead }

// hold counts n more outboxes in which the frame waits, and letGo n fewer. The
// sum has the frame's bytes while it waits in at least one.
func (f *Frame) hold(n int, sum *atomic.Int64) {
	if n > 0 && f != Ping && f.waiting.Add(int32(n)) == int32(n) {
		sum.Add(int64(f.Size()))
	}
}

// letGo reports whether the frame waits nowhere any more.
func (f *Frame) letGo(n int, sum *atomic.Int64) (last bool) {
	if n > 0 && f != Ping && f.waiting.Add(-int32(n)) == 0 {
		sum.Add(-int64(f.Size()))
		return true
	}
	return false
}

// event encodes the frame as a server-sent event, whose text data appends. The browser
// sends its id back as Last-Event-ID.
func (f *Frame) event(id bool, data func(b, text []byte) []byte) []byte {
	switch {
	case f.head > 0 || f.Kind == Place:
		b := make([]byte, 0, len(f.ws)+64)
		if f.Value != nil && id {
			const field = "id: "
			b = f.Value.AppendID(append(b, field...))
			if len(b) > len(field) {
				b = append(b, '\n')
			} else {
				b = b[:0]
			}
		}
		if f.head > 0 {
			b = data(b, f.Text())
		}
		return append(b, '\n')
	case f == Ping:
		// A comment keeps proxies from cutting the stream. No empty line
		// follows: some clients make an event of each.
		return []byte(":\n")
	}
	return []byte{}
}

// appendData appends JSON as the data of an event.
func appendData(b, json []byte) []byte {
	return append(appendOneLine(append(b, "data: "...), json), '\n')
}

// appendOneLine appends JSON as one line for every client. The lines of an event
// end at CR and LF only, but some clients also end them where Unicode does.
// Within JSON such characters only stand in strings, and can be escaped.
func appendOneLine(to, text []byte) []byte {
	if !bytes.Contains(text, []byte("\u2028")) && !bytes.Contains(text, []byte("\u2029")) && !bytes.Contains(text, []byte("\u0085")) {
		return append(to, text...)
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch r {
		case '\u2028', '\u2029', '\u0085':
			to = fmt.Appendf(to, `\u%04x`, r)
		default:
			to = append(to, text[:n]...)
		}
		text = text[n:]
	}
	return to
}
