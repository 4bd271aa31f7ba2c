package channels

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// envelopeBytes is the room around a body: the header, escaped, the id, the keys.
const envelopeBytes = 6*MaxHeaderBytes + 1024

// unmarshal reads JSON and says what is wrong with it.
func unmarshal(b []byte, v any) error {
	if !utf8.Valid(b) {
		return ErrBadUTF8
	}
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case len(b) == 0:
		return errBadJSON.saying(`the message is empty; it has to be a JSON object {"header":"…","body":…}`)
	case errors.As(err, &syntax):
		return errBadJSON.saying("not valid JSON at byte %d: %v", syntax.Offset, syntax)
	case errors.As(err, &typ):
		if typ.Field == "" {
			return ErrBadMessage.saying(`the message has to be a JSON object {"header":"…","body":…}, not JSON of type %s`, typ.Value)
		}
		return ErrBadMessage.saying("%q has a JSON value of the wrong type, %s", typ.Field, typ.Value)
	}
	return errBadJSON.saying("not valid JSON: %v", err)
}

// parsedMessage checks the parts of a message that unmarshal has read. A
// RawMessage is a copy of its own, so nothing shares memory with the input.
func parsedMessage(header, body json.RawMessage, max int) (m Message, err error) {
	switch {
	case header == nil:
		return m, ErrBadMessage.saying("the header is missing; a message has a header, a string, and a body")
	case header[0] != '"':
		return m, ErrBadMessage.saying("the header has to be a string")
	case body == nil:
		return m, ErrBadMessage.saying("the body is missing; it may be any JSON value, null too")
	case len(body) > max:
		return m, ErrTooLarge.saying("a message has at most %d bytes, this body has %d", max, len(body))
	}
	if m.Header = string(header[1 : len(header)-1]); strings.Contains(m.Header, `\`) {
		if err := json.Unmarshal(header, &m.Header); err != nil {
			return m, ErrBadMessage.saying("the header has to be a string")
		}
	}
	if err := checkHeader(m.Header); err != nil {
		return m, err
	}
	m.Body, err = checkParsed(body)
	return m, err
}

// inboundBuffer holds one message while it is read and parsed.
type inboundBuffer struct{ b []byte }

var inbound = sync.Pool{New: func() any { return &inboundBuffer{make([]byte, 0, 1024)} }}

// readFrom reads all of r, whose length its own limit bounds.
func (i *inboundBuffer) readFrom(r io.Reader) error {
	if cap(i.b) > writeBytes {
		i.b = make([]byte, 0, 1024) // a rare long message is not to be kept
	}
	i.b = i.b[:0]
	for {
		if len(i.b) == cap(i.b) {
			i.b = append(i.b, 0)[:len(i.b)]
		}
		n, err := r.Read(i.b[len(i.b):cap(i.b)])
		i.b = i.b[:len(i.b)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
