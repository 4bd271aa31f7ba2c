package clientproto

import (
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// writers are coders, which escape to the heap.
var writers = sync.Pool{New: func() any { return new(coder) }}

// writer returns a coder that appends to b.
func writer(b []byte, f Format) *coder {
	c := writers.Get().(*coder)
	c.format, c.out = f, b
	return c
}

// close returns what was written, and ends the use of a writer.
func (c *coder) close() []byte {
	b := c.out
	c.out = nil
	writers.Put(c)
	return b
}

// key begins a field.
func (c *coder) key(num number, name string, typ protowire.Type) {
	if c.format == JSON {
		c.out = appendName(c.out, name)
	} else {
		c.out = protowire.AppendTag(c.out, num, typ)
	}
}

// begin begins a message of about so many bytes, which end ends. It is a field of the
// message around it, unless name is empty in JSON, or num is 0 in Protobuf.
func (c *coder) begin(num number, name string, about int) (m mark) {
	if c.format == JSON {
		if name != "" {
			c.out = appendName(c.out, name)
		}
		c.out = append(c.out, '{')
		return m
	}
	if num != 0 {
		c.out = protowire.AppendTag(c.out, num, bytesType)
	}
	c.out, m = beginSized(c.out, about)
	return m
}

func (c *coder) end(m mark) {
	if c.format == JSON {
		c.out = append(c.out, '}')
	} else {
		c.out = endSized(c.out, m)
	}
}

// appendText appends s with U+FFFD for what is not valid UTF-8. A client would refuse
// the whole frame for it.
func (c *coder) appendText(s string) {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if c.format == JSON {
		c.out = appendQuoted(c.out, s)
	} else {
		c.out = protowire.AppendString(c.out, s)
	}
}

func (c *coder) appendRaw(b []byte) {
	if c.format == JSON {
		c.out = appendOneLine(c.out, b)
	} else {
		c.out = protowire.AppendBytes(c.out, b)
	}
}
