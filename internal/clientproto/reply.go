package clientproto

import "encoding/json"

// A Reply is what a server sends: a push; or the ID of a command, with either an
// error or the result that belongs to its request. An empty one is a ping.
type Reply struct {
	ID    uint32
	Error *Error
	Push  *Push

	Connect       *ConnectResult
	Subscribe     *SubscribeResult
	Unsubscribe   *UnsubscribeResult
	Publish       *PublishResult
	Presence      *PresenceResult
	PresenceStats *PresenceStatsResult
	History       *HistoryResult
	RPC           *RPCResult
	Refresh       *RefreshResult
	SubRefresh    *SubRefreshResult
}

func (m *Reply) fields(c *coder) {
	unsigned(c, 1, "id", &m.ID)
	sub(c, 2, "error", &m.Error)
	sub(c, 4, "push", &m.Push)
	sub(c, 5, "connect", &m.Connect)
	sub(c, 6, "subscribe", &m.Subscribe)
	sub(c, 7, "unsubscribe", &m.Unsubscribe)
	sub(c, 8, "publish", &m.Publish)
	sub(c, 9, "presence", &m.Presence)
	sub(c, 10, "presence_stats", &m.PresenceStats)
	sub(c, 11, "history", &m.History)
	sub(c, 13, "rpc", &m.RPC)
	sub(c, 14, "refresh", &m.Refresh)
	sub(c, 15, "sub_refresh", &m.SubRefresh)
}

// Error says why a command failed.
type Error struct {
	Code      uint32
	Message   string
	Temporary bool // the same command may succeed later
}

func (m *Error) fields(c *coder) {
	unsigned(c, 1, "code", &m.Code)
	c.text(2, "message", &m.Message)
	c.bool(3, "temporary", &m.Temporary)
}

// ConnectResult says what the connection is.
type ConnectResult struct {
	Client  string // the id of the connection
	Version string // the server's
	Expires bool
	TTL     uint32 // seconds
	Data    json.RawMessage
	Subs    map[string]*SubscribeResult // by the server, by channel
	Ping    uint32                      // seconds from one ping to the next
	Pong    bool                        // the client has to answer pings
	Session string                      // for requests of an emulation
	Node    string                      // the same
	Time    int64                       // milliseconds since 1970
}

func (m *ConnectResult) fields(c *coder) {
	c.text(1, "client", &m.Client)
	c.text(2, "version", &m.Version)
	c.bool(3, "expires", &m.Expires)
	unsigned(c, 4, "ttl", &m.TTL)
	c.json(5, "data", &m.Data)
	entries(c, 6, "subs", &m.Subs)
	unsigned(c, 7, "ping", &m.Ping)
	c.bool(8, "pong", &m.Pong)
	c.text(9, "session", &m.Session)
	c.text(10, "node", &m.Node)
	signed(c, 11, "time", &m.Time)
}

// SubscribeResult says what a subscription is, and what was missed.
type SubscribeResult struct {
	Expires       bool
	TTL           uint32 // seconds
	Recoverable   bool
	Epoch         string
	Publications  []Publication
	Recovered     bool
	Offset        uint64
	Positioned    bool
	Data          json.RawMessage
	WasRecovering bool
}

func (m *SubscribeResult) fields(c *coder) {
	c.bool(1, "expires", &m.Expires)
	unsigned(c, 2, "ttl", &m.TTL)
	c.bool(3, "recoverable", &m.Recoverable)
	c.text(6, "epoch", &m.Epoch)
	list(c, 7, "publications", &m.Publications)
	c.bool(8, "recovered", &m.Recovered)
	unsigned(c, 9, "offset", &m.Offset)
	c.bool(10, "positioned", &m.Positioned)
	c.json(11, "data", &m.Data)
	c.bool(12, "was_recovering", &m.WasRecovering)
}

// UnsubscribeResult says that a subscription has ended.
type UnsubscribeResult struct{}

func (m *UnsubscribeResult) fields(*coder) {}

// PublishResult says that a message was published.
type PublishResult struct{}

func (m *PublishResult) fields(*coder) {}

// PresenceResult says who is in a channel, by the id of the connection.
type PresenceResult struct{ Presence map[string]*ClientInfo }

func (m *PresenceResult) fields(c *coder) {
	c.zero("presence", len(m.Presence) == 0, "{}")
	entries(c, 1, "presence", &m.Presence)
}

// PresenceStatsResult says how many are in a channel.
type PresenceStatsResult struct{ NumClients, NumUsers uint32 }

func (m *PresenceStatsResult) fields(c *coder) {
	c.zero("num_clients", m.NumClients == 0, "0")
	unsigned(c, 1, "num_clients", &m.NumClients)
	c.zero("num_users", m.NumUsers == 0, "0")
	unsigned(c, 2, "num_users", &m.NumUsers)
}

// HistoryResult has messages of a channel, and where the channel is.
type HistoryResult struct {
	Publications []Publication
	Epoch        string
	Offset       uint64
}

func (m *HistoryResult) fields(c *coder) {
	c.zero("publications", len(m.Publications) == 0, "[]")
	list(c, 1, "publications", &m.Publications)
	c.zero("epoch", m.Epoch == "", `""`)
	c.text(2, "epoch", &m.Epoch)
	c.zero("offset", m.Offset == 0, "0")
	unsigned(c, 3, "offset", &m.Offset)
}

// RPCResult is what a call has returned.
type RPCResult struct{ Data json.RawMessage }

func (m *RPCResult) fields(c *coder) { c.json(1, "data", &m.Data) }

// RefreshResult says how long the new token is good.
type RefreshResult struct {
	Client  string
	Version string
	Expires bool
	TTL     uint32 // seconds
}

func (m *RefreshResult) fields(c *coder) {
	c.text(1, "client", &m.Client)
	c.text(2, "version", &m.Version)
	c.bool(3, "expires", &m.Expires)
	unsigned(c, 4, "ttl", &m.TTL)
}

// SubRefreshResult says how long the new token is good.
type SubRefreshResult struct {
	Expires bool
	TTL     uint32 // seconds
}

func (m *SubRefreshResult) fields(c *coder) {
	c.bool(1, "expires", &m.Expires)
	unsigned(c, 2, "ttl", &m.TTL)
}
