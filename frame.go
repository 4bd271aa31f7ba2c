package channels

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// A frame is one thing to be written, encoded once for all its receivers, at
// most once for each wire format. It never changes, so that any number of
// queues may hold it.
type frame struct {
	ch   *channel  // whose message it is; nil for what the hub says itself
	msg  *Message  // what Go subscribers get: message, or nil where they get nothing
	err  error     // what Go subscribers get instead of a message
	at   *Position // where the channel is after it; nil where that says nothing
	last bool      // nothing may follow it: a close frame, the end of a stream
	pong bool      // only the newest one counts
	head uint8     // how long the header of ws is where a text follows; 0 for a frame of the protocol's own
	// except is the id of the connection that does not get it, or "".
	except string

	ws []byte // the WebSocket frame

	message Message

	waiting atomic.Int32 // in how many outboxes it waits; see hold

	encoding sync.Mutex // held while one of the two below is made
	deflated atomic.Pointer[[]byte]
	sse      atomic.Pointer[[]byte]
}

// format is how a connection wants its frames.
type format uint8

const (
	formatWS format = iota
	formatDeflate
	formatSSE
	formatGo
)

// frameOverhead is what a queued frame costs beside its bytes, roughly: so
// that millions of tiny frames are bounded too.
const frameOverhead = 64

// WebSocket opcodes, RFC 6455 section 11.8, with the FIN bit.
const (
	opText  = 0x80 | 0x1
	opClose = 0x80 | 0x8
	opPing  = 0x80 | 0x9
	opPong  = 0x80 | 0xA
	rsv1    = 0x40 // RFC 7692: the message is deflated
)

// appendWSHeader appends the header of an unmasked (server to client) frame.
func appendWSHeader(b []byte, first byte, n int) []byte {
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

const maxWSHeader = 10

// newTextFrame makes a frame of which build appends the text.
func newTextFrame(sizeHint int, build func([]byte) []byte) *frame {
	f := &frame{}
	f.encode(sizeHint, build)
	return f
}

func (f *frame) encode(sizeHint int, build func([]byte) []byte) {
	f.setText(build(make([]byte, maxWSHeader, maxWSHeader+sizeHint)))
}

// setText takes a text that stands behind room for the longest header: the
// header is set right before it, so that there is one allocation and no copy.
func (f *frame) setText(b []byte) {
	text := b[maxWSHeader:]
	var head [maxWSHeader]byte
	h := appendWSHeader(head[:0], opText, len(text))
	start := maxWSHeader - len(h)
	copy(b[start:], h)
	f.head, f.ws = uint8(len(h)), b[start:]
}

// text is the JSON, or nil for a frame of the WebSocket protocol's own.
func (f *frame) text() []byte {
	if f.head == 0 {
		return nil
	}
	return f.ws[f.head:]
}

// newMessageFrame encodes m. The frame does not keep m.Body: its own message
// has the part of the text that is the body.
func newMessageFrame(ch *channel, m Message) *frame {
	f := &frame{ch: ch, message: m}
	f.msg = &f.message
	size := maxWSHeader + len(`{"header":"","body":}`) + len(m.Header) + len(m.Body)
	if m.Position != (Position{}) {
		f.at = &f.message.Position
		size += len(`,"offset":18446744073709551615,"epoch":""`) + len(m.Position.Epoch)
	}
	b := make([]byte, maxWSHeader, size)
	b = appendHead(b, m.Header)
	from := len(b)
	b = append(b, m.Body...)
	to := len(b)
	b = appendTail(b, f.at)
	f.setText(b)
	f.message.Body = b[from:to:to]
	return f
}

// newControlFrame makes a frame of the WebSocket protocol's own.
func newControlFrame(op byte, payload []byte) *frame {
	return &frame{ws: append(appendWSHeader(nil, op, len(payload)), payload...)}
}

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
func farewell(e *Error, code websocket.StatusCode) []*frame {
	said := newErrorFrame(e, nil)
	said.err = e
	return []*frame{said, newCloseFrame(code, e.Code)}
}

// newCloseFrame ends a connection. The reason is cut to what fits.
func newCloseFrame(code websocket.StatusCode, reason string) *frame {
	if len(reason) > 123 { // RFC 6455 section 5.5: 125 with the code
		reason = reason[:123]
	}
	f := newControlFrame(opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
	f.last = true
	return f
}

// newHubFrame makes what the hub itself says: {"header":…,"body":…}.
func newHubFrame(header string, body any) *frame {
	b, err := json.Marshal(body)
	if err != nil {
		b = []byte("null")
	}
	return newTextFrame(len(b)+32, func(to []byte) []byte { return appendMessage(to, header, b, nil) })
}

type wireError struct {
	Code string `json:"code"`
	Msg  string `json:"msg"`
}

// newErrorFrame tells a client what was refused; id is that of its message.
func newErrorFrame(e *Error, id json.RawMessage) *frame {
	body, _ := json.Marshal(wireError{e.Code, e.Message}) // strings cannot fail
	return newAnswerFrame(headerError, body, id)
}

func newAnswerFrame(header string, body, id json.RawMessage) *frame {
	return newTextFrame(len(body)+len(id)+48, func(b []byte) []byte {
		b = append(b, `{"header":"`...)
		b = append(b, header...)
		b = append(b, `","body":`...)
		b = append(b, body...)
		if id != nil {
			b = append(b, `,"id":`...)
			b = append(b, id...)
		}
		return append(b, '}')
	})
}

// newExchangeFrame acknowledges a publish, with the position where there is one.
func newExchangeFrame(res Result, id json.RawMessage) *frame {
	if res.Position == (Position{}) {
		return newAnswerFrame(headerExchange, exchangeOK, id)
	}
	body, _ := json.Marshal(struct { // strings and numbers cannot fail
		Msg       string `json:"msg"`
		Offset    uint64 `json:"offset"`
		Epoch     string `json:"epoch"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{"ok", res.Position.Offset, res.Position.Epoch, res.Duplicate})
	return newAnswerFrame(headerExchange, body, id)
}

var exchangeOK = json.RawMessage(`{"msg":"ok"}`)

// newPlaceFrame tells a stream of server-sent events where it begins, so that
// the browser can resume from there. No event comes of it.
func newPlaceFrame(pos Position) *frame { return &frame{at: &pos} }

// newResetFrame says that messages up to pos can no longer be had; pos is nil
// where the channel has no positions.
func newResetFrame(reason string, pos *Position) *frame {
	body, _ := json.Marshal(struct {
		Reason string `json:"reason"`
	}{reason})
	f := newTextFrame(len(body)+96, func(b []byte) []byte { return appendMessage(b, headerReset, body, pos) })
	f.at = pos
	e := &ResetError{Reason: reason}
	if pos != nil {
		e.Position = *pos
	}
	f.err = e
	return f
}

// bytes returns the frame in a format; empty where it has nothing to say there.
func (f *frame) bytes(as format) []byte {
	switch as {
	case formatDeflate:
		if f.ch != nil && len(f.text()) >= f.ch.hub.opts.CompressBytes {
			return f.once(&f.deflated, f.deflate)
		}
	case formatSSE:
		return f.once(&f.sse, f.event)
	}
	return f.ws
}

// once returns what make makes the first time. All writers begin with a new
// frame at the same moment, so that without the lock each would make its own.
func (f *frame) once(p *atomic.Pointer[[]byte], make func() []byte) []byte {
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

// isFrom tells whether a subscriber is not to get the frame, as it has sent it.
func (f *frame) isFrom(s *subscription) bool { return f.except != "" && f.except == s.id }

// offset is the message's place in the history, or 0 where it has none.
func (f *frame) offset() uint64 {
	if f.msg == nil {
		return 0
	}
	return f.msg.Position.Offset
}

// hold counts n more outboxes in which the frame waits, and letGo n fewer. Its
// bytes are in sum, the hub's, while there is one. A fan-out holds for all of
// its receivers at once (BenchmarkFanOut).
func (f *frame) hold(n int, sum *atomic.Int64) {
	if n > 0 && f != pingFrame && f.waiting.Add(int32(n)) == int32(n) { // pings are of all hubs
		sum.Add(int64(f.size()))
	}
}

func (f *frame) letGo(n int, sum *atomic.Int64) {
	if n > 0 && f != pingFrame && f.waiting.Add(-int32(n)) == 0 {
		sum.Add(-int64(f.size()))
	}
}

// size is what the frame counts for in a queue.
func (f *frame) size() int { return len(f.ws) + frameOverhead }

// event encodes the frame as a server-sent event; the id is the position,
// which the browser sends back as Last-Event-ID.
func (f *frame) event() []byte {
	switch {
	case f.head > 0 || f.at != nil:
		b := make([]byte, 0, len(f.ws)+64)
		if f.at != nil {
			b = append(b, "id: "...)
			b = append(b, f.at.Epoch...)
			b = append(b, ':')
			b = strconv.AppendUint(b, f.at.Offset, 10)
			b = append(b, '\n')
		}
		if f.head > 0 {
			b = append(b, "data: "...)
			b = appendOneLine(b, f.text())
			b = append(b, '\n')
		}
		return append(b, '\n')
	case f == pingFrame:
		// A comment, which keeps proxies from cutting. There is no empty line
		// behind it: some clients make an event of each.
		return []byte(":\n")
	}
	return []byte{}
}

var pingFrame = newControlFrame(opPing, nil)

// newHeartbeatFrame is a ping that scripts see too. An event stream gets an
// event of its own kind, which does not come to onmessage.
func newHeartbeatFrame(period time.Duration) *frame {
	said := newHubFrame(headerPing, map[string]int64{"every_ms": period.Milliseconds()})
	f := &frame{ws: append(bytes.Clone(pingFrame.ws), said.ws...)}
	event := fmt.Appendf(nil, "event: %s\ndata: %s\n\n", headerPing, said.text())
	f.sse.Store(&event)
	return f
}

// appendOneLine appends JSON as one line for everybody. The lines of an event
// end at CR and LF only, but there are clients that also end them where Unicode
// does: within JSON such characters only stand in strings, and can be escaped.
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

var flaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflate compresses the text for permessage-deflate without context
// takeover (RFC 7692 section 7.2.1), or returns the plain frame where that
// is not smaller.
func (f *frame) deflate() []byte {
	f.ch.hub.stats.deflated.Add(1)
	var out bytes.Buffer
	text := f.text()
	out.Grow(maxWSHeader + len(text)/2)
	out.Write(make([]byte, maxWSHeader))
	w := flaters.Get().(*flate.Writer)
	defer flaters.Put(w)
	w.Reset(&out)
	_, err := w.Write(text)
	if err = errors.Join(err, w.Flush()); err != nil {
		return f.ws // a Buffer does not fail
	}
	b := bytes.TrimSuffix(out.Bytes(), []byte("\x00\x00\xff\xff"))
	n := len(b) - maxWSHeader
	if n >= len(text) {
		return f.ws
	}
	var head [maxWSHeader]byte
	h := appendWSHeader(head[:0], opText|rsv1, n)
	start := maxWSHeader - len(h)
	copy(b[start:], h)
	w.Reset(io.Discard)
	return b[start:]
}
