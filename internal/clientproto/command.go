package clientproto

import "encoding/json"

// A Command is what a client sends. An empty one is a pong. At most one of its
// requests should be set.
type Command struct {
	ID uint32 // repeated in the reply; a Send needs none

	Connect       *ConnectRequest
	Subscribe     *SubscribeRequest
	Unsubscribe   *UnsubscribeRequest
	Publish       *PublishRequest
	Presence      *PresenceRequest
	PresenceStats *PresenceStatsRequest
	History       *HistoryRequest
	Ping          *PingRequest // in the schema, but not served
	Send          *SendRequest
	RPC           *RPCRequest
	Refresh       *RefreshRequest
	SubRefresh    *SubRefreshRequest

	// Unknown says that there is a field that the schema does not have, so possibly
	// a request of a later version.
	Unknown bool
}

func (m *Command) fields(c *coder) {
	unsigned(c, 1, "id", &m.ID)
	sub(c, 4, "connect", &m.Connect)
	sub(c, 5, "subscribe", &m.Subscribe)
	sub(c, 6, "unsubscribe", &m.Unsubscribe)
	sub(c, 7, "publish", &m.Publish)
	sub(c, 8, "presence", &m.Presence)
	sub(c, 9, "presence_stats", &m.PresenceStats)
	sub(c, 10, "history", &m.History)
	sub(c, 11, "ping", &m.Ping)
	sub(c, 12, "send", &m.Send)
	sub(c, 13, "rpc", &m.RPC)
	sub(c, 14, "refresh", &m.Refresh)
	sub(c, 15, "sub_refresh", &m.SubRefresh)
}

// IsPong reports whether the command is empty.
func (m *Command) IsPong() bool { return *m == Command{} }

// ConnectRequest is the first command of a connection.
type ConnectRequest struct {
	Token string
	Data  json.RawMessage
	// Subs are the subscriptions by the server that the client had before, and from
	// where it wants to go on: only Recover, Epoch and Offset count.
	Subs          map[string]*SubscribeRequest
	Name, Version string // the client's software
}

func (m *ConnectRequest) fields(c *coder) {
	c.text(1, "token", &m.Token)
	c.json(2, "data", &m.Data)
	entries(c, 3, "subs", &m.Subs)
	c.text(4, "name", &m.Name)
	c.text(5, "version", &m.Version)
}

// FlagRejectUnrecovered in SubscribeRequest.Flag asks for an error (code 112) instead
// of a subscription that could not recover.
const FlagRejectUnrecovered = 1 << 1

// SubscribeRequest subscribes to a channel.
type SubscribeRequest struct {
	Channel     string
	Token       string
	Recover     bool // go on after Epoch and Offset
	Epoch       string
	Offset      uint64
	Data        json.RawMessage
	Positioned  bool
	Recoverable bool
	JoinLeave   bool
	Filter      bool  // there is a filter of tags, which is not served
	Flag        int64 // bits
	Type        int32 // 0 for a channel; the others are not served
}

func (m *SubscribeRequest) fields(c *coder) {
	c.text(1, "channel", &m.Channel)
	c.text(2, "token", &m.Token)
	c.bool(3, "recover", &m.Recover)
	c.text(6, "epoch", &m.Epoch)
	unsigned(c, 7, "offset", &m.Offset)
	c.json(8, "data", &m.Data)
	c.bool(9, "positioned", &m.Positioned)
	c.bool(10, "recoverable", &m.Recoverable)
	c.bool(11, "join_leave", &m.JoinLeave)
	c.present(13, "tf", &m.Filter)
	signed(c, 14, "flag", &m.Flag)
	signed(c, 15, "type", &m.Type)
}

// UnsubscribeRequest ends a subscription.
type UnsubscribeRequest struct{ Channel string }

func (m *UnsubscribeRequest) fields(c *coder) { c.text(1, "channel", &m.Channel) }

// PublishRequest publishes on a channel.
type PublishRequest struct {
	Channel string
	Data    json.RawMessage
	Type    int32 // 0 for a channel; the others are not served
}

func (m *PublishRequest) fields(c *coder) {
	c.text(1, "channel", &m.Channel)
	c.json(2, "data", &m.Data)
	signed(c, 3, "type", &m.Type)
}

// PresenceRequest asks who is in a channel.
type PresenceRequest struct{ Channel string }

func (m *PresenceRequest) fields(c *coder) { c.text(1, "channel", &m.Channel) }

// PresenceStatsRequest asks how many are in a channel.
type PresenceStatsRequest struct{ Channel string }

func (m *PresenceStatsRequest) fields(c *coder) { c.text(1, "channel", &m.Channel) }

// HistoryRequest asks for the messages that a channel keeps.
type HistoryRequest struct {
	Channel string
	Limit   int32           // 0 for only the position, negative for all
	Since   *StreamPosition // may be nil
	Reverse bool            // the newest first, and those before Since
}

func (m *HistoryRequest) fields(c *coder) {
	c.text(1, "channel", &m.Channel)
	signed(c, 7, "limit", &m.Limit)
	sub(c, 8, "since", &m.Since)
	c.bool(9, "reverse", &m.Reverse)
}

// StreamPosition is a place in a channel's history.
type StreamPosition struct {
	Offset uint64
	Epoch  string
}

func (m *StreamPosition) fields(c *coder) {
	unsigned(c, 1, "offset", &m.Offset)
	c.text(2, "epoch", &m.Epoch)
}

// PingRequest is not what keeps a connection alive: see [Command.IsPong].
type PingRequest struct{}

func (m *PingRequest) fields(*coder) {}

// SendRequest is a call without a reply.
type SendRequest struct{ Data json.RawMessage }

func (m *SendRequest) fields(c *coder) { c.json(1, "data", &m.Data) }

// RPCRequest is a call.
type RPCRequest struct {
	Data   json.RawMessage
	Method string
}

func (m *RPCRequest) fields(c *coder) {
	c.json(1, "data", &m.Data)
	c.text(2, "method", &m.Method)
}

// RefreshRequest has a new token for the connection.
type RefreshRequest struct{ Token string }

func (m *RefreshRequest) fields(c *coder) { c.text(1, "token", &m.Token) }

// SubRefreshRequest has a new token for a subscription.
type SubRefreshRequest struct {
	Channel string
	Token   string
	Type    int32 // 0 for a channel; the others are not served
}

func (m *SubRefreshRequest) fields(c *coder) {
	c.text(1, "channel", &m.Channel)
	c.text(2, "token", &m.Token)
	signed(c, 3, "type", &m.Type)
}
