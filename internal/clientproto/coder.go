package clientproto

import (
	"encoding/json"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// A message is a message of the schema. Its method fields says once, for both formats
// and both directions, which fields it has.
type message interface{ fields(*coder) }

type number = protowire.Number

const (
	varintType = protowire.VarintType
	bytesType  = protowire.BytesType
)

// A coder writes the fields of a message, or reads them. For each field that is in the
// input, all the message's fields are asked whether it is theirs.
type coder struct {
	format  Format
	reading bool

	out []byte // what was written

	at         place
	maxEntries int   // of a map that is read
	err        error // what is wrong with the input
	invalid    error // what is not JSON in it, although it should be
}

// A place is where a coder is in the input.
type place struct {
	name  string         // of the field, in JSON
	num   number         // of the field, in Protobuf
	typ   protowire.Type // the same
	value []byte         // JSON, or the bytes of a field of bytesType
	int   uint64         // the value of a field of varintType

	found   bool   // the field is known
	before  uint32 // a bit for the number of each field that was found before
	unknown bool   // there was a field that is not known
	surplus int    // how many fields were unknown, or not the first of their name
}

// maxSurplus bounds the fields of a message that mean nothing. To skip one costs more
// than to send it.
const maxSurplus = 100

// read reads a message, and reports whether it has unknown fields. In JSON, b must be
// valid.
func (c *coder) read(b []byte, m message) (unknown bool) {
	outer := c.at
	c.at = place{}
	if c.format == JSON {
		c.readJSON(b, m)
	} else {
		c.readProtobuf(b, m)
	}
	unknown = c.at.unknown
	c.at = outer
	return unknown
}

// readField reads the message that is the present field.
func (c *coder) readField(name string, m message) {
	if c.format == JSON && !c.object(name) {
		return
	}
	if c.read(c.at.value, m); c.err != nil {
		c.err = within(name, c.err)
	}
}

// ask asks a message about the present field.
func (c *coder) ask(m message) {
	c.at.found = false
	m.fields(c)
	if !c.at.found {
		c.at.unknown = true
		c.at.surplus++
	}
	if c.at.surplus > maxSurplus && c.err == nil {
		c.err = fmt.Errorf("more than %d fields are unknown or appear twice", maxSurplus)
	}
}

// find reports whether the present field is the one that is asked for.
func (c *coder) find(num number, name string, typ protowire.Type) bool {
	if c.at.found || (c.format == JSON && c.at.name != name) || (c.format == Protobuf && c.at.num != num) {
		return false
	}
	c.at.found = true
	if c.format == Protobuf && c.at.typ != typ {
		c.fail(name, fmt.Sprintf("has the wire type %d instead of %d", c.at.typ, typ))
	}
	return c.err == nil
}

// findOnce is find for a field that appears once.
func (c *coder) findOnce(num number, name string, typ protowire.Type) bool {
	if !c.find(num, name, typ) {
		return false
	}
	bit := uint32(1) << num
	if c.at.before&bit != 0 {
		if c.format == JSON {
			c.fail(name, "appears twice")
			return false
		}
		c.at.surplus++
	}
	c.at.before |= bit
	return true
}

// is is findOnce, but not for null, which JSON may have instead of leaving out a field.
func (c *coder) is(num number, name string, typ protowire.Type) bool {
	return c.findOnce(num, name, typ) && !(c.format == JSON && string(c.at.value) == "null")
}

// A fieldError says what is wrong with a field.
type fieldError struct{ name, what string }

func (e *fieldError) Error() string { return e.name + " " + e.what }

func (c *coder) fail(name, what string) { c.err = &fieldError{name, what} }

// within returns err with the name of the field in which it was found.
func within(name string, err error) error {
	if e, ok := err.(*fieldError); ok {
		return &fieldError{name + "." + e.name, e.what}
	}
	return &fieldError{name, err.Error()}
}

// The functions below are the kinds of fields.

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
			c.fail(name, "has to be a whole number that is not too large")
		}
	}
}

// presence is for a message of which it only counts that it is there.
func (c *coder) presence(num number, name string, p *bool) {
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

func list[T any, P pointer[T]](c *coder, num number, name string, p *[]T) {
	switch {
	case !c.reading && len(*p) == 0:
	case !c.reading:
		if c.format == JSON {
			c.out = append(appendName(c.out, name), '[')
		}
		for i := range *p {
			if c.format == JSON && i > 0 {
				c.out = append(c.out, ',')
			}
			m := c.begin(num, "", 0)
			P(&(*p)[i]).fields(c)
			c.end(m)
		}
		if c.format == JSON {
			c.out = append(c.out, ']')
		}
	case c.format == Protobuf:
		if c.find(num, name, bytesType) {
			*p = append(*p, *new(T))
			c.readField(name, P(&(*p)[len(*p)-1]))
		}
	case c.is(num, name, bytesType):
		for value := range c.elements(name) {
			*p = append(*p, *new(T))
			c.at.value = value
			c.readField(name, P(&(*p)[len(*p)-1]))
		}
	}
}

// entries is for a map with texts as keys.
func entries[T any, P pointer[T]](c *coder, num number, name string, p *map[string]P) {
	switch {
	case !c.reading && len(*p) == 0:
	case !c.reading && c.format == Protobuf:
		for key, value := range *p {
			m := c.begin(num, "", 0)
			(&entry{key, value}).fields(c)
			c.end(m)
		}
	case !c.reading:
		m := c.begin(num, name, 0)
		for key, value := range *p {
			c.out = append(appendQuoted(comma(c.out), key), ':')
			v := c.begin(0, "", 0)
			value.fields(c)
			c.end(v)
		}
		c.end(m)
	case c.format == Protobuf:
		if c.find(num, name, bytesType) {
			v := P(new(T))
			e := entry{value: v}
			c.readField(name, &e)
			addEntry(c, name, p, e.key, v)
		}
	case c.is(num, name, bytesType):
		for key, value := range c.members(name) {
			v := P(new(T))
			if addEntry(c, name, p, key, v); c.err != nil {
				return
			}
			if c.at.value = value; string(value) != "null" {
				c.readField(name, v)
			}
		}
	}
}

// addEntry refuses a key that is there already: Protobuf would take the last one, but
// then a few bytes could be sent again and again.
func addEntry[P any](c *coder, name string, p *map[string]P, key string, value P) {
	_, twice := (*p)[key]
	switch {
	case c.err != nil:
	case twice:
		c.fail(name, "has a key twice")
	case len(*p) >= c.maxEntries:
		c.fail(name, "has more than the "+strconv.Itoa(c.maxEntries)+" entries that are allowed")
	case *p == nil:
		*p = map[string]P{key: value}
	default:
		(*p)[key] = value
	}
}
