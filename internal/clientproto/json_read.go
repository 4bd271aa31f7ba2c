package clientproto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/internal/quickjson"
)

const space = " \t\r\n" // of JSON

// maxDepth bounds how deep arrays and objects nest in a message. It is far more than a
// hub allows in a body, so that a body that is too deep is no broken frame.
const maxDepth = 1000

// jsonMessages cuts a frame into valid JSON objects. Each usually has its own line,
// but may have several.
func jsonMessages(frame []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			if frame = bytes.TrimLeft(frame, space); len(frame) == 0 {
				return
			}
			one, rest, err := cutJSON(frame)
			if err == nil && one[0] != '{' {
				err = errors.New("it has to be a JSON object")
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if frame = rest; !yield(one, nil) {
				return
			}
		}
	}
}

// cutJSON cuts off the first value of a frame that begins with one.
func cutJSON(frame []byte) (value, rest []byte, err error) {
	line, rest, _ := bytes.Cut(frame, []byte{'\n'})
	if line = bytes.TrimRight(line, space); quickjson.Valid(line) {
		return line, rest, nil
	}
	end := exact.End(frame, 0)
	value, rest = frame[:end:end], frame[end:]
	if err := checkJSON(value); err != nil {
		return nil, nil, err
	}
	between, rest, _ := bytes.Cut(rest, []byte{'\n'})
	if len(bytes.TrimLeft(between, space)) > 0 {
		return nil, nil, errors.New("a line feed has to follow, or the end of the frame")
	}
	return value, rest, nil
}

// checkJSON says what is wrong with b if it is not one value in valid UTF-8.
func checkJSON(b []byte) error {
	switch {
	case quickjson.Valid(b):
		return nil
	case !utf8.Valid(b):
		return errors.New("it is not valid UTF-8")
	case quickjson.Deeper(b, maxDepth):
		return fmt.Errorf("it nests more than %d levels deep", maxDepth)
	}
	err := json.Unmarshal(b, new(json.RawMessage))
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Errorf("it is not valid JSON at byte %d: %w", syntax.Offset, err)
	}
	return err
}

func (c *coder) readJSON(b []byte, m message) {
	for name, value := range exact.Pairs(b) {
		c.at.name, c.at.value = name[1:len(name)-1], value
		if bytes.IndexByte(name, '\\') >= 0 {
			c.at.name = []byte(exact.Text(name))
		}
		if c.ask(m); c.err != nil {
			return
		}
	}
}

// object reports whether the present field is an object, which it has to be.
func (c *coder) object(name string) bool {
	if c.at.value[0] != '{' {
		c.fail(name, "has to be an object")
	}
	return c.err == nil
}

// members yields the members of the present field.
func (c *coder) members(name string) iter.Seq2[string, json.RawMessage] {
	if !c.object(name) {
		return func(func(string, json.RawMessage) bool) {}
	}
	return exact.Members(c.at.value)
}

// elements yields the elements of the present field, which has to be a list.
func (c *coder) elements(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		b := c.at.value
		if b[0] != '[' {
			c.fail(name, "has to be an array")
			return
		}
		for b = bytes.TrimLeft(b[1:], space); b[0] != ']'; {
			end := exact.End(b, 0)
			if !yield(b[:end:end]) || c.err != nil {
				return
			}
			if b = bytes.TrimLeft(b[end:], space); b[0] == ',' {
				b = bytes.TrimLeft(b[1:], space)
			}
		}
	}
}
