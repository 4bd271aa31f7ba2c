package clientproto

import "encoding/json"

// A Publication is a message of a channel.
type Publication struct {
	Data   json.RawMessage
	Info   *ClientInfo // who has published it; may be nil
	Offset uint64      // 0 if the channel has no history
	Tags   Tags
	Time   int64 // milliseconds since 1970; 0 is left out
}

func (m *Publication) fields(c *coder) {
	c.json(4, "data", &m.Data)
	sub(c, 5, "info", &m.Info)
	unsigned(c, 6, "offset", &m.Offset)
	c.tags(7, "tags", &m.Tags)
	signed(c, 9, "time", &m.Time)
}

// Tags are a map in the schema. These are the ones that this server sets.
type Tags struct {
	Header  string // empty for the default header
	Channel string // for the subscriber of a pattern
}

func (m *Tags) fields(c *coder) {
	c.text(1, "header", &m.Header)
	c.text(2, "channel", &m.Channel)
}

// ClientInfo says who somebody is.
type ClientInfo struct {
	User     string
	Client   string          // the id of the connection
	ConnInfo json.RawMessage // of the connection
	ChanInfo json.RawMessage // of the subscription
}

func (m *ClientInfo) fields(c *coder) {
	c.zero("user", m.User == "", `""`)
	c.text(1, "user", &m.User)
	c.zero("client", m.Client == "", `""`)
	c.text(2, "client", &m.Client)
	c.json(3, "conn_info", &m.ConnInfo)
	c.json(4, "chan_info", &m.ChanInfo)
}

func (c *coder) tags(num number, name string, t *Tags) {
	switch {
	case c.reading && c.format == JSON:
		if c.is(num, name, bytesType) {
			c.readField(name, t)
		}
	case c.reading:
		if c.find(num, name, bytesType) {
			var e tag
			c.readField(name, &e)
			switch e.key {
			case "header":
				t.Header = e.value
			case "channel":
				t.Channel = e.value
			}
		}
	case *t == Tags{}:
	case c.format == JSON:
		m := c.begin(num, name, 0)
		t.fields(c)
		c.end(m)
	default:
		c.tag(num, "header", t.Header)
		c.tag(num, "channel", t.Channel)
	}
}

func (c *coder) tag(num number, key, value string) {
	if value != "" {
		m := c.begin(num, "", 0)
		(&tag{key, value}).fields(c)
		c.end(m)
	}
}

// A tag is an entry of the map of tags in Protobuf.
type tag struct{ key, value string }

func (m *tag) fields(c *coder) {
	c.text(1, "key", &m.key)
	c.text(2, "value", &m.value)
}
