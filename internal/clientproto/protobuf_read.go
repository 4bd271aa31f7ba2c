package clientproto

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufMessages cuts a frame into messages.
func protobufMessages(frame []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for len(frame) > 0 {
			one, n := protowire.ConsumeBytes(frame)
			if n < 0 {
				yield(nil, fmt.Errorf("its length is wrong: %w", protowire.ParseError(n)))
				return
			}
			if frame = frame[n:]; !yield(one, nil) {
				return
			}
		}
	}
}

func (c *coder) readProtobuf(b []byte, m message) {
	for len(b) > 0 && c.err == nil {
		num, typ, n := protowire.ConsumeTag(b)
		if n >= 0 {
			b = b[n:]
			c.at.num, c.at.typ, c.at.value, c.at.int = num, typ, nil, 0
			switch typ {
			case varintType:
				c.at.int, n = protowire.ConsumeVarint(b)
			case bytesType:
				c.at.value, n = protowire.ConsumeBytes(b)
				c.at.value = c.at.value[:len(c.at.value):len(c.at.value)]
			case protowire.Fixed32Type:
				_, n = protowire.ConsumeFixed32(b)
			case protowire.Fixed64Type:
				_, n = protowire.ConsumeFixed64(b)
			default:
				c.err = errors.New("there is a group, or an unknown wire type")
				return
			}
		}
		if n < 0 {
			c.err = fmt.Errorf("it is not valid Protobuf: %w", protowire.ParseError(n))
			return
		}
		b = b[n:]
		c.ask(m)
	}
}

// readRaw reads JSON, in either format.
func (c *coder) readRaw(name string, p *json.RawMessage) {
	*p = nil
	if c.format == Protobuf {
		if len(c.at.value) == 0 {
			return
		}
		if err := checkJSON(c.at.value); err != nil {
			c.invalid = fmt.Errorf("the field %s has to be a JSON value, in Protobuf too: %w", name, err)
			return
		}
	}
	*p = c.at.value
}

// An entry is one of a map.
type entry struct {
	key   string
	value message
}

func (m *entry) fields(c *coder) {
	c.text(1, "key", &m.key)
	if !c.reading {
		mark := c.begin(2, "value", 0)
		m.value.fields(c)
		c.end(mark)
	} else if c.is(2, "value", bytesType) {
		c.readField("value", m.value)
	}
}
