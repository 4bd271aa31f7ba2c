package fanout

import (
	"encoding/json"
	"strings"
	"sync/atomic"

	"github.com/channels-go/channels/internal/exact"
)

// Pages take what these formats send as it comes: the body of a message without the
// JSON around it.

// pageFormats is how many of the Formats are for pages.
const pageFormats = int(BodyEvents-Named) + 1

// Events reports whether a format is of server-sent events.
func (as Format) Events() bool {
	return as == SSE || as == ClientEvents || as == Named || as == Channels || as == ChannelsNamed || as == BodyEvents
}

// Placed reports whether a receiver learns from a frame's own id where it is.
func (as Format) Placed() bool { return as == SSE || as == Named || as == BodyEvents }

// Deflates reports whether a format is of WebSocket frames with permessage-deflate.
func (as Format) Deflates() bool { return as == Deflate || as == BodiesDeflate }

// Deflated is a WebSocket's format once permessage-deflate is agreed on.
func (as Format) Deflated() Format {
	if as == Bodies {
		return BodiesDeflate
	}
	return Deflate
}

// pageForms are a frame in the formats for pages, as far as it was encoded.
type pageForms [pageFormats]atomic.Pointer[[]byte]

// pageForms returns those of the frame, even if there are none yet.
func (f *Frame) pageForms() *pageForms {
	pages := &f.otherForms().pages
	if forms := pages.Load(); forms != nil {
		return forms
	}
	pages.CompareAndSwap(nil, new(pageForms))
	return pages.Load()
}

// page encodes the frame in one of the formats for pages.
func (f *Frame) page(as Format) []byte {
	if as >= Bodies && f.Kind != Message { // the server's own words stay as they are
		return f.Bytes([...]Format{WebSocket, Deflate, SSE}[as-Bodies])
	}
	form := &f.pageForms()[as-Named]
	var plain []byte
	if as == BodiesDeflate && form.Load() == nil { // once holds a lock
		plain = f.page(Bodies)
	}
	return f.once(form, func() []byte {
		switch as {
		case Channels:
			return f.event(false, f.appendChannel)
		case Bodies:
			return f.body()
		case BodiesDeflate:
			if _, body := parts(f.Text()); f.worthDeflating(body) {
				return f.deflate(body, plain)
			}
			return plain
		case BodyEvents:
			return f.event(true, func(b, message []byte) []byte {
				_, body := parts(message)
				return appendData(b, body)
			})
		}
		return f.event(as == Named, appendNamed)
	})
}

// body encodes the body alone as a WebSocket frame.
func (f *Frame) body() []byte {
	_, body := parts(f.Text())
	return append(appendHeader(make([]byte, 0, HeaderRoom+len(body)), opText, len(body)), body...)
}

// appendChannel appends a message as the data of an event, with its channel.
func (f *Frame) appendChannel(b, message []byte) []byte {
	name := ""
	if f.Value != nil {
		name = f.Value.Channel()
	}
	if name == "" {
		return appendData(b, message)
	}
	text, _ := json.Marshal(name) // a string cannot fail
	b = append(append(append(b, `data: {"channel":`...), text...), ',')
	return append(appendOneLine(b, message[1:]), '\n') // after its brace
}

// appendNamed appends a message as an event that has the header as its name, and the
// body as its data: JSON in one line, or the text of a JSON string line by line.
func appendNamed(b, message []byte) []byte {
	header, body := parts(message)
	if body == nil { // no message, which servers never send
		return appendData(b, message)
	}
	if name := exact.Text(header); isEventName(name) {
		b = append(append(append(b, "event: "...), name...), '\n')
	}
	if body[0] == '"' {
		return appendLines(b, exact.Text(body))
	}
	return appendData(b, body)
}

// parts returns the two of a message, which the server itself has put together.
func parts(message []byte) (header, body []byte) {
	for name, value := range exact.Pairs(message) {
		switch string(name) {
		case `"header"`:
			header = value
		case `"body"`:
			return header, value
		}
	}
	return header, body
}

// isEventName reports whether an event can be named after a header. If not, it has no
// name, and browsers call it "message". So it is with that header itself, since some
// libraries take only events without a name. "open" is what an EventSource calls the
// beginning of a stream. A control character, or a line end of Unicode's, would end the
// line for some clients.
func isEventName(header string) bool {
	return header != "message" && header != "open" && !strings.ContainsFunc(header, func(r rune) bool {
		return r < ' ' || r == 0x7f || r == '\u0085' || r == '\u2028' || r == '\u2029'
	})
}

// appendLines appends a text as the data of an event. A line ends where the HTML
// standard says: at CR LF, LF or CR.
func appendLines(b []byte, text string) []byte {
	for {
		end := strings.IndexAny(text, "\r\n")
		line := text
		if end >= 0 {
			line = text[:end]
		}
		b = append(append(append(b, "data: "...), line...), '\n')
		if end < 0 {
			return b
		}
		crlf := strings.HasPrefix(text[end:], "\r\n")
		if text = text[end+1:]; crlf {
			text = text[1:]
		}
	}
}
