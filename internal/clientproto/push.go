package clientproto

import "encoding/json"

// A Push is what a server sends by itself. One of its pointers is set.
type Push struct {
	Channel string // empty if the push concerns the connection

	Pub         *Publication
	Join        *Join
	Leave       *Leave
	Unsubscribe *Unsubscribe
	Message     *Message
	Subscribe   *Subscribe
	Disconnect  *Disconnect
	Refresh     *Refresh
}

func (m *Push) fields(c *coder) {
	c.text(2, "channel", &m.Channel)
	sub(c, 4, "pub", &m.Pub)
	sub(c, 5, "join", &m.Join)
	sub(c, 6, "leave", &m.Leave)
	sub(c, 7, "unsubscribe", &m.Unsubscribe)
	sub(c, 8, "message", &m.Message)
	sub(c, 9, "subscribe", &m.Subscribe)
	sub(c, 11, "disconnect", &m.Disconnect)
	sub(c, 12, "refresh", &m.Refresh)
}

// Join says who has come into a channel.
type Join struct{ Info *ClientInfo }

func (m *Join) fields(c *coder) { sub(c, 1, "info", &m.Info) }

// Leave says who has left a channel.
type Leave struct{ Info *ClientInfo }

func (m *Leave) fields(c *coder) { sub(c, 1, "info", &m.Info) }

// Unsubscribe says that the server has ended a subscription. With a code of 2500 or
// more, the client subscribes again.
type Unsubscribe struct {
	Code   uint32
	Reason string
}

func (m *Unsubscribe) fields(c *coder) {
	unsigned(c, 2, "code", &m.Code)
	c.text(3, "reason", &m.Reason)
}

// Message is data for the connection, of no channel.
type Message struct{ Data json.RawMessage }

func (m *Message) fields(c *coder) { c.json(1, "data", &m.Data) }

// Subscribe says that the server has subscribed the connection.
type Subscribe struct {
	Recoverable bool
	Epoch       string
	Offset      uint64
	Positioned  bool
	Data        json.RawMessage
}

func (m *Subscribe) fields(c *coder) {
	c.bool(1, "recoverable", &m.Recoverable)
	c.text(4, "epoch", &m.Epoch)
	unsigned(c, 5, "offset", &m.Offset)
	c.bool(6, "positioned", &m.Positioned)
	c.json(7, "data", &m.Data)
}

// Disconnect says that the server ends the connection, where no close frame does.
type Disconnect struct {
	Code   uint32
	Reason string
}

func (m *Disconnect) fields(c *coder) {
	unsigned(c, 1, "code", &m.Code)
	c.text(2, "reason", &m.Reason)
}

// Refresh says how long the connection may go on, without a request of the client.
type Refresh struct {
	Expires bool
	TTL     uint32 // seconds
}

func (m *Refresh) fields(c *coder) {
	c.bool(1, "expires", &m.Expires)
	unsigned(c, 2, "ttl", &m.TTL)
}
