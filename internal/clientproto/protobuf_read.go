package clientproto

import (
	"errors"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufMessages cuts a frame into messages.
func protobufMessages(frame []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for len(frame) > 0 {
			one, n := protowire.ConsumeBytes(frame)
			if n < 0 {
				yield(nil, errors.New("its length is wrong, or the rest of it is missing"))
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
			c.err = errors.New("it is not valid Protobuf")
			return
		}
		b = b[n:]
		c.ask(m)
	}
}
