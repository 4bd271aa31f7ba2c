package clientproto

import "strconv"

func list[T any, P pointer[T]](c *coder, num number, name string, p *[]T) {
	switch {
	case c.reading:
		readList[T, P](c, num, name, p)
	case len(*p) > 0:
		writeList[T, P](c, num, name, *p)
	}
}

func writeList[T any, P pointer[T]](c *coder, num number, name string, all []T) {
	if c.format == JSON {
		c.out = append(appendName(c.out, name), '[')
	}
	for i := range all {
		if c.format == JSON && i > 0 {
			c.out = append(c.out, ',')
		}
		m := c.begin(num, "", 0)
		P(&all[i]).fields(c)
		c.end(m)
	}
	if c.format == JSON {
		c.out = append(c.out, ']')
	}
}

func readList[T any, P pointer[T]](c *coder, num number, name string, p *[]T) {
	switch {
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
	case c.reading:
		readEntries(c, num, name, p)
	case len(*p) > 0:
		writeEntries(c, num, name, *p)
	}
}

func writeEntries[T any, P pointer[T]](c *coder, num number, name string, all map[string]P) {
	if c.format == Protobuf {
		for key, value := range all {
			m := c.begin(num, "", 0)
			(&entry{key, value}).fields(c)
			c.end(m)
		}
		return
	}
	m := c.begin(num, name, 0)
	for key, value := range all {
		c.out = comma(c.out)
		c.appendText(key)
		c.out = append(c.out, ':')
		v := c.begin(0, "", 0)
		value.fields(c)
		c.end(v)
	}
	c.end(m)
}

func readEntries[T any, P pointer[T]](c *coder, num number, name string, p *map[string]P) {
	switch {
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
