package channels

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/internal/quickjson"
	"github.com/channels-go/channels/store"
)

// Message is what is published on a channel: a header that says what kind of
// thing it is, and a body, which is any JSON value.
type Message struct {
	Header string
	Body   json.RawMessage

	// Channel is the name of the message's channel, where a subscription has the
	// messages of several: see SubscribePattern. Otherwise it is empty. Publish
	// ignores it.
	Channel string
	// Position is the message's place in a channel with history, and zero in
	// other channels. Time is when the Store appended it, in milliseconds, and zero in
	// other channels; also if another replica passed it on that is of a version before
	// this field.
	// Publisher is the connection that published it. It is nil if that was the
	// app's own code or HTTP, or if the channel hides its publishers. Subscribers
	// share it, so it must not be changed. Publish ignores all three.
	Position  Position
	Time      time.Time
	Publisher *Publisher
}

// MaxHeaderBytes is the longest header of a message.
const MaxHeaderBytes = 1024

// maxDepth bounds how deep arrays and objects nest in a body: JSON parsers of
// clients give up (Python's at about 1,000) or recurse without a limit.
const maxDepth = 500

// The headers that only the hub itself sends.
const (
	headerError     = "error"
	headerExchange  = "exchange"
	headerReset     = "reset"
	headerReconnect = "reconnect"
	headerPresence  = "presence"
	headerPing      = "ping" // clients send it too: see conn.handle
)

func checkHeader(h string) error {
	switch h {
	case headerError, headerExchange, headerReset, headerReconnect, headerPresence, headerPing:
		return ErrReservedHeader.saying("the header %q is the server's own; choose another", h)
	case "":
		return ErrBadMessage.saying("the header must not be empty")
	}
	if len(h) > MaxHeaderBytes {
		return ErrBadMessage.saying("a header has at most %d bytes, this one has %d", MaxHeaderBytes, len(h))
	}
	if !utf8.ValidString(h) {
		return ErrBadUTF8.saying("the header is not valid UTF-8")
	}
	return nil
}

// checkBody returns the body as it is sent: valid JSON in UTF-8 on one line, since
// the data of a server-sent event ends at a line end. It never changes b.
func checkBody(b json.RawMessage, max int) (json.RawMessage, error) {
	switch {
	case len(b) == 0:
		return nil, ErrBadMessage.saying("the body is missing; it may be any JSON value, also null")
	case len(b) > max:
		return nil, ErrTooLarge.saying("a message has at most %d bytes, this body has %d; "+sendLess, max, len(b))
	case quickjson.Valid(b):
		return b, nil
	case !utf8.Valid(b):
		return nil, ErrBadUTF8.saying("the body is not valid UTF-8")
	case tooDeep(b): // before the validation, which recurses as deep
		return nil, errTooDeep
	case !gjson.ValidBytes(b): // it takes a third of encoding/json's time
		return nil, notJSON(b)
	}
	return onOneLine(b)
}

// notJSON says where a body of the app's own code is wrong, and how to make a valid one.
func notJSON(b []byte) error {
	return ErrBadMessage.saying("the body is not valid JSON%s; even a text needs quotes, and channels.Of encodes any Go value", syntaxOf(b))
}

// syntaxOf says where and why b is not JSON, or nothing if it is.
func syntaxOf(b []byte) string {
	if syntax := (*json.SyntaxError)(nil); errors.As(json.Unmarshal(b, new(json.RawMessage)), &syntax) {
		return fmt.Sprintf(" at byte %d: %v", syntax.Offset, syntax)
	}
	return ""
}

// checkParsed is checkBody for JSON that was validated already.
func checkParsed(b json.RawMessage) (json.RawMessage, error) {
	if tooDeep(b) {
		return nil, errTooDeep
	}
	return onOneLine(b)
}

var errTooDeep = ErrBadMessage.saying("the body nests more than %d levels deep", maxDepth)

func tooDeep(b []byte) bool { return quickjson.Deeper(b, maxDepth) }

// onOneLine returns b, or a copy without white space if b has several lines.
func onOneLine(b json.RawMessage) (json.RawMessage, error) {
	if bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0 { // white space: inside of strings they are escaped
		var c bytes.Buffer
		if err := json.Compact(&c, b); err != nil {
			return nil, ErrBadMessage.saying("the body is not valid JSON").because(err)
		}
		b = c.Bytes()
	}
	return b, nil
}

// appendMessage appends {"header":…,"body":…}, with the position if there is one.
func appendMessage(b []byte, header string, body []byte, at *Position) []byte {
	return appendTail(append(appendHead(b, "", header), body...), at, 0)
}

// appendHead appends what comes before the body. The channel may be left out.
func appendHead(b []byte, channel, header string) []byte {
	b = append(b, '{')
	if channel != "" {
		b = append(b, `"channel":`...)
		b = append(appendString(b, channel), ',')
	}
	b = append(b, `"header":`...)
	b = appendString(b, header)
	return append(b, `,"body":`...)
}

// appendTail appends what comes after the body. The time is in milliseconds since 1970;
// 0 is left out.
func appendTail(b []byte, at *Position, ms int64) []byte {
	if at != nil {
		b = append(b, `,"offset":`...)
		b = strconv.AppendUint(b, at.Offset, 10)
		b = append(b, `,"epoch":`...)
		b = appendString(b, at.Epoch)
	}
	if ms != 0 {
		b = strconv.AppendInt(append(b, `,"time":`...), ms, 10)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// fromEntry returns the message of an entry, as a channel with these options has it.
func fromEntry(opts *ChannelOptions, epoch string, e *store.Entry) Message {
	return Message{Header: e.Header, Body: e.Body, Time: e.Time, Position: Position{epoch, e.Offset}, Publisher: opts.publisher(e.Info)}
}
