package clientproto

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/channels-go/channels/internal/exact"
)

// The methods fields call one of these functions for each field. It writes the field,
// unless it has the zero value; or it reads the field if it is the present one.

// zero writes the zero value of a field that the schema's own JSON always has. SDKs
// take it for granted. Protobuf has no zero values.
func (c *coder) zero(name string, is bool, value string) {
	if is && !c.reading && c.format == JSON {
		c.out = append(appendName(c.out, name), value...)
	}
}

func (c *coder) text(num number, name string, p *string) {
	switch {
	case !c.reading:
		if *p != "" {
			c.key(num, name, bytesType)
			c.appendText(*p)
		}
	case c.is(num, name, bytesType):
		c.readText(name, p)
	}
}

func (c *coder) json(num number, name string, p *json.RawMessage) {
	switch {
	case !c.reading:
		if len(*p) > 0 {
			c.key(num, name, bytesType)
			c.appendRaw(*p)
		}
	case c.findOnce(num, name, bytesType):
		c.readRaw(name, p)
	}
}

func (c *coder) bool(num number, name string, p *bool) {
	switch {
	case !c.reading:
		if *p {
			c.key(num, name, varintType)
			if c.format == JSON {
				c.out = append(c.out, "true"...)
			} else {
				c.out = append(c.out, 1)
			}
		}
	case !c.is(num, name, varintType):
	case c.format == Protobuf:
		*p = c.at.int != 0
	case c.at.value[0] == 't':
		*p = true
	case c.at.value[0] == 'f':
		*p = false
	default:
		c.fail(name, "has to be true or false")
	}
}

func unsigned[T uint32 | uint64](c *coder, num number, name string, p *T) {
	switch {
	case !c.reading:
		if *p != 0 {
			c.key(num, name, varintType)
			if c.format == JSON {
				c.out = strconv.AppendUint(c.out, uint64(*p), 10)
			} else {
				c.out = protowire.AppendVarint(c.out, uint64(*p))
			}
		}
	case !c.is(num, name, varintType):
	case c.format == Protobuf:
		*p = T(c.at.int) // longer ones are cut, as Protobuf says
	default:
		n, err := strconv.ParseUint(string(c.at.value), 10, 64)
		if *p = T(n); err != nil || uint64(*p) != n {
			c.fail(name, fmt.Sprintf("has to be a whole number from 0 to %d", ^T(0)))
		}
	}
}

func signed[T int32 | int64](c *coder, num number, name string, p *T) {
	switch {
	case !c.reading:
		if *p != 0 {
			c.key(num, name, varintType)
			if c.format == JSON {
				c.out = strconv.AppendInt(c.out, int64(*p), 10)
			} else {
				c.out = protowire.AppendVarint(c.out, uint64(*p))
			}
		}
	case !c.is(num, name, varintType):
	case c.format == Protobuf:
		*p = T(c.at.int)
	default:
		n, err := strconv.ParseInt(string(c.at.value), 10, 64)
		if *p = T(n); err != nil || int64(*p) != n {
			lowest := T(-1)
			for lowest<<1 < 0 {
				lowest <<= 1
			}
			c.fail(name, fmt.Sprintf("has to be a whole number from %d to %d", lowest, ^lowest))
		}
	}
}

// present is for a message of which it only counts that it is there.
func (c *coder) present(num number, name string, p *bool) {
	switch {
	case !c.reading:
		if *p {
			c.end(c.begin(num, name, 0))
		}
	case c.is(num, name, bytesType):
		*p = true
	}
}

// A pointer is a message that is a pointer to T.
type pointer[T any] interface {
	*T
	message
}

func sub[T any, P pointer[T]](c *coder, num number, name string, p *P) {
	switch {
	case !c.reading:
		if *p != nil {
			m := c.begin(num, name, 0)
			(*p).fields(c)
			c.end(m)
		}
	case c.is(num, name, bytesType):
		if *p == nil {
			*p = new(T)
		}
		c.readField(name, *p)
	}
}

// readText reads a text, in either format.
func (c *coder) readText(name string, p *string) {
	switch {
	case c.format == Protobuf && utf8.Valid(c.at.value):
		*p = string(c.at.value)
	case c.format == Protobuf:
		c.fail(name, "is not valid UTF-8")
	case c.at.value[0] != '"':
		c.fail(name, "has to be a string")
	default:
		*p = exact.Text(c.at.value)
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
