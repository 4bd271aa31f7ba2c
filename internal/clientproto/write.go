package clientproto

import "google.golang.org/protobuf/encoding/protowire"

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

func (c *coder) appendText(s string) {
	if c.format == JSON {
		c.out = appendQuoted(c.out, s)
	} else {
		c.out = protowire.AppendString(c.out, utf8Text(s))
	}
}

func (c *coder) appendRaw(b []byte) {
	if c.format == JSON {
		c.out = appendOneLine(c.out, b)
	} else {
		c.out = protowire.AppendBytes(c.out, b)
	}
}
