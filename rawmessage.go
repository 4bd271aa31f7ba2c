package channels

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/internal/exact"
)

// envelopeBytes is the room for what surrounds a body: the escaped header, the id, the key.
const envelopeBytes = 6*MaxHeaderBytes + 1024

// checkObject says what is wrong with JSON that has to be an object.
func checkObject(b []byte) error {
	switch {
	case len(b) == 0:
		return errBadJSON.saying(`the message is empty; it must be a JSON object {"header":"…","body":…}`)
	case !utf8.Valid(b):
		return ErrBadUTF8
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return errBadJSON.saying("the message begins with a byte order mark, U+FEFF, which JSON does not allow; send it without")
	case tooDeep(b) || !gjson.ValidBytes(b): // gjson takes a third of encoding/json's time, but has no limit of depth
		if at := syntaxOf(b); at != "" {
			return errBadJSON.saying("not valid JSON%s", at)
		}
	}
	typ := "number"
	switch bytes.TrimLeft(b, " \t\r\n")[0] {
	case '{', 'n':
		return nil // the caller says what null lacks
	case '[':
		typ = "array"
	case '"':
		typ = "string"
	case 't', 'f':
		typ = "bool"
	}
	return ErrBadMessage.saying(`the message has to be a JSON object {"header":"…","body":…}, not JSON of type %s`, typ)
}

// rawMessage has the members that a message from the network may have, over HTTP
// or a connection. It shares memory with the input.
type rawMessage struct {
	header, body, id            json.RawMessage
	key                         json.RawMessage // as "key" or "idempotency_key"
	channel, channels, messages json.RawMessage
	local                       json.RawMessage
}

// maxMembersOfMessage bounds the members of one message. Each name is unescaped
// and remembered, which costs far more than to send it: a few hundred compressed
// bytes can hold 10,000 names.
const maxMembersOfMessage = 100

var errTooManyNames = ErrBadMessage.saying("the message has more than %d members; leave out those that the server does not know, or put them into the body", maxMembersOfMessage)

// longestString returns the length of the longest JSON for a string of so many
// bytes: each as \u00XX, and the quotes.
func longestString(bytes int) int { return 6*bytes + 2 }

// read reads valid JSON. Names are compared exactly, and no name may appear
// twice. Unknown names are ignored. The id is set even if read fails.
func (r *rawMessage) read(b []byte) (err error) {
	var names exact.Names
	n := 0
	for name, value := range exact.Members(b) {
		if n++; n > maxMembersOfMessage {
			return errTooManyNames
		}
		if e := names.Add(name); e != nil && err == nil {
			err = ErrBadMessage.saying("%v; each may appear once", e)
		}
		switch name {
		case "header":
			r.header = value
		case "body":
			r.body = value
		case "id":
			r.id = value
		case "key", "idempotency_key":
			if value = unlessNull(value); value == nil {
				continue
			}
			if r.key != nil && err == nil {
				err = ErrBadKey.saying(`there are a "key" and an "idempotency_key", which mean the same; give only one`)
			}
			r.key = value
		case "local":
			r.local = unlessNull(value)
		case "channel":
			r.channel = unlessNull(value)
		case "channels":
			r.channels = unlessNull(value)
		case "messages":
			r.messages = unlessNull(value)
		}
	}
	return err
}

func unlessNull(value json.RawMessage) json.RawMessage {
	if string(value) == "null" {
		return nil
	}
	return value
}

// parse returns the message, and the options of its publish.
func (r *rawMessage) parse(max int) (m Message, o PublishOptions, err error) {
	if m, err = r.message(max); err == nil {
		o, err = r.options()
	}
	return m, o, err
}

// options returns the options of a publish.
func (r *rawMessage) options() (o PublishOptions, err error) {
	if r.key == nil {
		return o, nil
	}
	if len(r.key) > longestString(maxKeyBytes) {
		return o, ErrBadKey.saying("an idempotency key has 1 to %d characters of printable ASCII without spaces; this one has more", maxKeyBytes)
	}
	if json.Unmarshal(r.key, &o.Key) != nil {
		return o, ErrBadMessage.saying("the key has to be a string of 1 to 200 characters")
	}
	if o.Key == "" {
		return o, ErrBadKey.saying("the key must not be empty; it has 1 to 200 characters, or is left out")
	}
	return o, nil
}

// message returns the message. It shares no memory with the input.
func (r *rawMessage) message(max int) (m Message, err error) {
	switch {
	case r.header == nil:
		return m, ErrBadMessage.saying(`the header is missing; a message is {"header":"…","body":…}, with exactly these names`)
	case r.header[0] != '"':
		return m, ErrBadMessage.saying("the header has to be a string")
	case len(r.header) > longestString(MaxHeaderBytes): // checked before it is unescaped
		return m, ErrBadMessage.saying("a header has at most %d bytes, this one has more", MaxHeaderBytes)
	case r.body == nil:
		return m, ErrBadMessage.saying(`the body is missing; a message is {"header":"…","body":…}, with exactly these names; the body may be any JSON value, null too`)
	case len(r.body) > max:
		return m, ErrTooLarge.saying("a message has at most %d bytes, this body has %d; "+sendLess, max, len(r.body))
	}
	if m.Header = string(r.header[1 : len(r.header)-1]); strings.Contains(m.Header, `\`) {
		if err := json.Unmarshal(r.header, &m.Header); err != nil {
			return m, ErrBadMessage.saying("the header has to be a string")
		}
	}
	if err := checkHeader(m.Header); err != nil {
		return m, err
	}
	m.Body, err = checkParsed(bytes.Clone(r.body))
	return m, err
}

// parseClientMessage reads {"header":…,"body":…,"id":…,"key":…}. The id is any
// JSON scalar of at most 64 bytes, and is returned even if the rest is wrong.
// Nothing that it returns shares memory with b. A ping is {"header":"ping",…}, and
// only its id counts.
func parseClientMessage(b []byte, max int) (m Message, id json.RawMessage, o PublishOptions, err error) {
	if err = checkObject(b); err != nil {
		return m, nil, o, err
	}
	var in rawMessage
	err = in.read(b)
	if in.id != nil && string(in.id) != "null" {
		if len(in.id) > 64 || in.id[0] == '{' || in.id[0] == '[' {
			return m, nil, o, ErrBadMessage.saying("the id may be a number, a string, true or false, of up to 64 bytes")
		}
		id = bytes.Clone(in.id)
	}
	if err == nil && string(in.header) == `"`+headerPing+`"` {
		return Message{Header: headerPing}, id, o, nil
	}
	if err == nil {
		m, o, err = in.parse(max)
	}
	return m, id, o, err
}

// idOf returns the id of a message that is refused unread, so that its sender
// knows which one it was. It does not look into a long message.
func idOf(b []byte) json.RawMessage {
	if len(b) > 4<<10 {
		return nil
	}
	for name, id := range exact.Members(b) {
		if name == "id" && len(id) > 0 && len(id) <= 64 && id[0] != '{' && id[0] != '[' && string(id) != "null" && json.Valid(id) {
			return bytes.Clone(id)
		}
	}
	return nil
}
