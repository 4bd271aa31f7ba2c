package clientproto

import (
	"fmt"

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
	name  []byte         // of the field, in JSON
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
	if c.at.found || (c.format == JSON && string(c.at.name) != name) || (c.format == Protobuf && c.at.num != num) {
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

func (e *fieldError) Error() string { return e.name + e.what }

func (c *coder) fail(name, what string) { c.err = &fieldError{name, " " + what} }

// within returns err with the name of the field in which it was found.
func within(name string, err error) error {
	if e, ok := err.(*fieldError); ok {
		return &fieldError{name + "." + e.name, e.what}
	}
	return &fieldError{name, ": " + err.Error()}
}
