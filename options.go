package channels

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/replica"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// Options configure a Hub. The zero value is one process that keeps everything in
// memory. New copies Options; later changes have no effect.
type Options struct {
	// Store keeps history, presence and numbers. The hub does not close a Store
	// that it is given. Default: a [store.Memory] of the hub's own.
	Store store.Store

	// Mesh carries messages between replicas. The hub does not close it: close
	// it after Shutdown. Default: none, for one process.
	Mesh mesh.Mesh

	// ReplicaID names this replica: 1 to 64 of A-Z, a-z, 0-9, "-", "_" and
	// ".". No two replicas may share one: if two do, and have a Mesh, both log
	// an error and neither is green. Default: the Mesh's id, if it
	// has one (see [mesh.Identified]); otherwise random. New refuses two
	// different ids.
	ReplicaID string

	// Channel returns a channel's options, by its name. It is called when a
	// channel comes to life on this replica, and must return the same on every
	// replica. It is also called with patterns (see SubscribePattern), of whose
	// options only SlowSubscriber counts. Default: the zero ChannelOptions for all channels.
	Channel func(name string) ChannelOptions

	// Authorize is called before a client subscribes, publishes, or reads
	// history, presence or the list. An error refuses; [Error] says what the
	// client sees of it. For the list of all channels, Request.Channel is empty:
	// an Authorize that decides by the channel's name has to refuse that too, or
	// everybody sees the names of all channels. Go code that calls the Hub is
	// trusted: it is not asked. Default: everything is allowed.
	Authorize func(ctx context.Context, r Request) error

	// Authenticate says who a client of the client protocol is, by the token in
	// its connect command, and again in each refresh command. data is what the
	// connect command has sent beside it, or nil; it is not checked. It is also
	// called for a connect command without a token, with an empty one, unless the
	// app's middleware has given the request an Identity, which then counts. A
	// token goes before such an Identity. A refresh may change anything of an
	// Identity but its ID; Authorize is then asked again for the subscriptions that
	// the client has, and presence goes on to show their Info.
	//
	// If the error is or wraps [ErrExpired], the client gets error 109, and comes
	// back with a new token. If it is an *Error with the status 429 or one from 500
	// on, or context.DeadlineExceeded, it passes: the client gets a temporary error,
	// and tries again. Any other error closes the connection with 3500, and the
	// client stays away until its program connects it anew: so say
	// ErrStoreUnavailable, or an *Error of your own with the status 503, if it is
	// not the token that is wrong.
	//
	// It is called by many goroutines at the same time, and before the client may
	// do anything. The context ends with the connection. middleware.Tokens has an
	// Authenticate. Default: tokens are ignored, and a client is who the
	// middleware says it is.
	Authenticate func(ctx context.Context, token string, data json.RawMessage) (Identity, error)

	// AllowedOrigins are the origins, besides the app's own, from which
	// browsers may connect and publish: "https://app.example.com", or
	// "https://*.example.com" for any subdomain. The origins of apps with their
	// own pages are compared as they are: "capacitor://localhost", "app://.",
	// "file://". "null" is for pages without an origin.
	//
	// "*" lets every website open WebSockets here with its visitors' cookies,
	// and so does "null", since any website can make a frame without an origin.
	// Use them for public data only, and name the origins otherwise. Default:
	// the app's own origin only.
	AllowedOrigins []string

	// Hosts are the names of this server: "app.example.com", or
	// "*.example.com" for any subdomain. A request with another Host is refused
	// with 421. Set it if clients need not authenticate: a website can point its
	// own name at this machine (DNS rebinding), and its pages then have the same
	// origin as the hub. Localhost and IP addresses are always allowed, since no
	// website has such a name. Default: all names.
	Hosts []string

	// OnConnect is called before a connection is accepted. An error refuses it. It may
	// subscribe a connection of the client protocol: see [Hub.SubscribeClient].
	OnConnect func(ctx context.Context, c Client) error
	// OnDisconnect is called once for each connection that OnConnect has let
	// in, even if the handshake failed afterwards. c has the connection's
	// totals. reason is nil if the client left by itself.
	OnDisconnect func(c Client, reason error)
	// OnSubscribe is called right after a connection has subscribed. Messages
	// that it publishes reach the new subscriber.
	OnSubscribe func(ctx context.Context, c Client, channel string)
	// OnOccupied is called when a channel gets its first subscriber on any replica, and
	// OnVacated when the last one has gone from all: for starting and stopping what
	// feeds a channel. Only connections count, and not those that are subscribed to a
	// pattern. Subscribers in Go do not count either: what feeds a channel may read it
	// without keeping it occupied.
	//
	// One replica at a time, the channel's owner, calls both: OnOccupied within about
	// a second of the first subscriber, and OnVacated 2 to 4 s after the last one, so
	// that a page that reloads stops nothing. The owner stays the same as long as it
	// lives. If it drains or shuts down, it calls OnVacated, and then another replica
	// with subscribers calls OnOccupied within about 2 s. If it dies, another one calls
	// it up to 13 s later. For one channel, the calls on a replica alternate, OnOccupied
	// first, and the next begins when the last has returned. Those on different
	// replicas do not overlap either, except if a replica was silent for more than
	// [store.DeadAfter] and then goes on, or the Store loses its data: then two may
	// feed the channel until the first hears of it, within 2 s of being back. While the
	// Store is down, all stays as it is.
	//
	// That is so if the replicas share a Store that is a [store.Holder]. Otherwise each
	// replica calls the hooks for its own subscribers.
	//
	// The context that OnOccupied gets ends when the channel is vacated here, right
	// before OnVacated is called. So "go feed(ctx, channel)" in OnOccupied is often
	// enough. Up to 16 of these hooks run at a time, and the others wait: start what
	// takes long in a goroutine. Shutdown calls OnVacated for all that are fed, and
	// waits for it.
	OnOccupied func(ctx context.Context, channel string)
	OnVacated  func(ctx context.Context, channel string)
	// OnReceive is called before a client's message is parsed: for each message
	// over a WebSocket (even if it turns out to be invalid), each command of the
	// client protocol but the first connect, each publish over HTTP, each message
	// of a batch, and each message that a [Bridge] publishes.
	// An error refuses it. It is the place for limits: middleware.Limiter has an
	// OnReceive. c is the connection; for HTTP and a Bridge it has no ID.
	OnReceive func(ctx context.Context, c Client) error
	// OnPublish is called before each message is published, the app's own too,
	// in the publisher's goroutine. It may change the message's header and body.
	// An error refuses the message. No lock is held while a hook runs, so hooks
	// may call the Hub.
	OnPublish func(ctx context.Context, p *Publication) error

	// OnCall answers what clients ask for over the client protocol, by methods of the
	// app's own. Its result is any JSON. For a method that it does not know it returns
	// ErrNoMethod. Default: there are no methods but the hub's own, publish.
	OnCall func(ctx context.Context, c Call) (json.RawMessage, error)

	// MaxMessageBytes bounds a message from the network and its body.
	// Default 256 KiB; 1 KiB to 64 MiB, and no more than the Mesh takes.
	MaxMessageBytes int
	// QueueBytes bounds what waits for one slow receiver. If it is full, the
	// channel's SlowSubscriber policy applies. Default 1 MiB or
	// 4 × MaxMessageBytes, whichever is more; at least 2 × MaxMessageBytes.
	QueueBytes int
	// MaxChannels bounds the channels that this replica holds at a time. If it
	// is reached, the channel without subscribers that was published on longest
	// ago makes way, and only its number of publishes is lost. If all channels
	// have subscribers, clients that subscribe to another one get 503
	// "too_many_channels". Publishing goes on, and so does the app's own
	// Subscribe. Default 1,000,000.
	MaxChannels int
	// MaxPatterns bounds the patterns that this replica's subscribers want at a
	// time; one that many want counts once. Further ones get 503
	// "too_many_channels", the app's own too: each costs a publish something if the
	// channel's name begins as the pattern does. Default 1,000; at most 10,000.
	MaxPatterns int
	// MaxConnections bounds the WebSockets and event streams of this replica.
	// Further ones get 503 "too_many_connections". Default 1,000,000.
	MaxConnections int
	// MaxConnectionsPerAddress bounds the connections of one IPv4 address or
	// IPv6 /64 network, by Request.RemoteAddr. Behind a proxy, put
	// middleware.TrustProxies around the hub, or all clients share one address.
	// Default 0: no limit.
	MaxConnectionsPerAddress int
	// MaxSubscriptions bounds the subscriptions of one connection of the client
	// protocol, including those that the app asks for, and those of one stream of
	// /v1/events. Default 128; up to 100,000.
	MaxSubscriptions int
	// MaxQueuedBytes bounds what waits for all receivers together. A message
	// counts once, since receivers share its memory. If it is reached, new
	// connections get 503 "overloaded", and existing ones lose nothing. Default
	// 1 GiB; at least QueueBytes.
	MaxQueuedBytes int
	// MaxUnfinishedBytes bounds the memory for requests' bodies and WebSocket
	// messages that have not arrived completely, after inflating them. If it is
	// reached, those that have held most for longest are refused with the code
	// "overloaded". Default 64 MiB, or twice the longest batch if that is more;
	// at least 2 × MaxMessageBytes plus 64 KiB.
	MaxUnfinishedBytes int
	// CompressBytes is the length from which a message is deflated, once for all
	// clients that can inflate it. Compression can reveal a secret if an attacker
	// chooses other text of the same message: turn it off for such messages.
	// Default 1024; negative: never.
	CompressBytes int
	// PingPeriod is how often connections are pinged. One that is silent for
	// twice as long is closed. A WebSocket's ping waits up to 2 s, or a tenth of the
	// period if that is less, for a message to go with. Default 25 s (proxies cut at 60 s); 1 s to
	// 10 min, in whole seconds.
	PingPeriod time.Duration
	// WriteTimeout is how long a connection may take nothing of what is written
	// to it before it is closed. A slow connection that goes on taking something
	// is only closed if its queue is full. An event stream has to take 4 KiB in
	// this time, and what fits into the system's socket buffer, since net/http
	// does not report less. Default 10 s; 100 ms to 5 min.
	WriteTimeout time.Duration
	// StoreTimeout bounds one call of the Store. Default 5 s; 10 ms to 1 min.
	StoreTimeout time.Duration
	// DrainDelay is how long Drain waits, after /readyz has begun to say 503,
	// for load balancers to notice. Set it to a little more than two of their probes:
	// without it, they send clients and publishes to a port that is closed.
	// Default 0, for setups without probes; up to 10 min.
	DrainDelay time.Duration
	// DrainTime is the time over which Drain spreads the reconnects of many clients.
	// Default 5 s; up to 10 min; negative: at once.
	DrainTime time.Duration

	// StreamTime is how long an event stream lasts, plus or minus a random
	// quarter. Its client reconnects, and misses nothing on a channel with
	// history. Without an end, a proxy that goes on reading for a client that has
	// gone would keep that client's member in the channel for ever. Default
	// 15 min; 1 s to 24 h; negative: never. Streams of the client protocol, whose
	// clients answer pings, have no such end.
	StreamTime time.Duration

	// Logger gets what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

// ChannelOptions say what a channel keeps and who may use it.
type ChannelOptions struct {
	// HistorySize is how many messages the channel keeps. With history, every
	// message has a position, and clients resume where they were. Default 0: no
	// history, and delivery at most once.
	HistorySize int
	// HistoryTTL is how long a message is kept. Default 24 h if HistorySize is set.
	HistoryTTL time.Duration
	// Presence says whether the channel knows who is subscribed. Default off.
	Presence PresenceMode
	// PresenceBy says whether each connection is a member, or each user. Default:
	// each connection.
	PresenceBy PresenceBy
	// PresenceGrace is how long a user whose last connection has gone may come back, on
	// any replica, without a leave and a join: a reload is neither, and a drain or
	// shutdown of a replica is not, either. Meanwhile the list goes on to show the
	// user, except for up to 2 s while another replica takes over from one that ends.
	// The leave comes up to 2 s after the grace. It does not matter why the connection
	// has gone. It is for PresenceByUser only, since a
	// connection never comes back; those without a user leave at once. Up to 100,000
	// users are waited for on a replica; further ones leave at once. Default 0: nobody
	// is waited for; up to 1 h.
	PresenceGrace time.Duration
	// SlowSubscriber is what happens to a subscriber whose queue is full. With
	// history it must be SlowClose: the client resumes without loss.
	SlowSubscriber SlowPolicy
	// Publishers says who may publish from the network.
	Publishers Publishers
	// HidePublishers keeps secret which connection published a message: its
	// Publisher is neither kept nor passed on. Set it on channels whose
	// subscribers may not know of each other. Default: Message.Publisher says it
	// for what connections publish.
	HidePublishers bool
	// MaxMessageBytes bounds the body of a message on this channel, also if the
	// app's own code publishes it. Many clients fail at long lines or frames
	// (Go's bufio.Scanner at 64 KiB, coder/websocket at 32 KiB). Default 0: the
	// limit of Options, which is the most.
	MaxMessageBytes int
}

// PresenceMode says what a channel tells of its subscribers.
type PresenceMode uint8

const (
	PresenceOff  PresenceMode = iota
	PresenceList              // Presence and GET …/presence list them
	// PresenceEvents is PresenceList, and subscribers get a "presence" message
	// for each member that joins or leaves. Such a message comes at most once: if
	// the mesh loses it, it is not sent again. The list is right within 2 s of a
	// join or leave on any replica, and within 10 s of a replica's death.
	PresenceEvents
)

// PresenceBy says who is a member of a channel.
type PresenceBy uint8

const (
	PresenceByConnection PresenceBy = iota // each connection: a user with two tabs is two members
	// PresenceByUser makes all connections with one Identity.ID one member, over all
	// replicas: the first of them joins, and the last one leaves. Member.ID is
	// Identity.ID. A connection without an Identity.ID counts as itself. The Store
	// decides which one is first and last (see [store.Holder]), so events wait for it:
	// while it is down, none comes, and then only what is different. If it does not
	// have that ability, or is not shared, each replica decides for its own
	// connections. If a replica dies, its users leave 10 s after its last report, and
	// PresenceGrace after that.
	PresenceByUser
)

// SlowPolicy is what happens to a subscriber whose queue is full.
type SlowPolicy uint8

const (
	SlowClose      = SlowPolicy(fanout.Close)      // close it with code 1013; the client connects again
	SlowDropOldest = SlowPolicy(fanout.DropOldest) // drop the channel's oldest messages until a quarter of the queue is free
	SlowKeepLatest = SlowPolicy(fanout.KeepLatest) // drop the channel's messages that wait for the newest one
)

// policy is the same in the words of the fan-out.
func (p SlowPolicy) policy() fanout.Policy { return fanout.Policy(p) }

// Publishers says which clients may publish on a channel. Go code that calls the
// Hub always may.
type Publishers uint8

const (
	PublishersAnyone     Publishers = iota // all that Authorize allows; on a user's channel (see UserChannel), none
	PublishersIdentified                   // those of them that have an Identity with an ID
	PublishersServer                       // none: only the app's Go code publishes
)

func (o *Options) setDefaults() {
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, 256<<10)
	o.QueueBytes = cmp.Or(o.QueueBytes, max(1<<20, 4*o.MaxMessageBytes))
	o.MaxChannels = cmp.Or(o.MaxChannels, 1_000_000)
	o.MaxPatterns = cmp.Or(o.MaxPatterns, 1_000)
	o.MaxConnections = cmp.Or(o.MaxConnections, 1_000_000)
	o.MaxSubscriptions = cmp.Or(o.MaxSubscriptions, 128)
	o.MaxQueuedBytes = cmp.Or(o.MaxQueuedBytes, max(1<<30, o.QueueBytes))
	o.MaxUnfinishedBytes = cmp.Or(o.MaxUnfinishedBytes, max(64<<20, 2*o.batchBytes()))
	o.CompressBytes = cmp.Or(o.CompressBytes, 1024)
	o.PingPeriod = cmp.Or(o.PingPeriod, 25*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 10*time.Second)
	o.StoreTimeout = cmp.Or(o.StoreTimeout, 5*time.Second)
	o.DrainTime = cmp.Or(o.DrainTime, 5*time.Second)
	o.StreamTime = cmp.Or(o.StreamTime, defaultStreamTime)
	if m, ok := o.Mesh.(mesh.Identified); ok {
		o.ReplicaID = cmp.Or(o.ReplicaID, m.ReplicaID())
	}
	o.ReplicaID = cmp.Or(o.ReplicaID, replica.NewID())
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Channel == nil {
		o.Channel = func(string) ChannelOptions { return ChannelOptions{} }
	}
}

// batchBytes bounds the body of one POST /v1/publish, and what it publishes. The
// messages of a batch may together be longer than one message.
func (o *Options) batchBytes() int { return 4*o.MaxMessageBytes + maxBatch*envelopeBytes/8 }

// between says that an option is out of its range.
func between[T int | time.Duration](field string, v, lo, hi T) error {
	if v < lo || v > hi {
		return fmt.Errorf("channels: Options.%s is %v; it must be %v to %v", field, v, lo, hi)
	}
	return nil
}

func (o *Options) check() error {
	err := cmp.Or( // the first of them
		between("MaxMessageBytes", o.MaxMessageBytes, 1<<10, 64<<20),
		between("QueueBytes", o.QueueBytes, 2*o.MaxMessageBytes, 1<<30),
		between("MaxChannels", o.MaxChannels, 1, 1<<30),
		between("MaxPatterns", o.MaxPatterns, 1, 10_000),
		between("MaxConnections", o.MaxConnections, 1, 1<<30),
		between("MaxConnectionsPerAddress", o.MaxConnectionsPerAddress, 0, 1<<30),
		between("MaxSubscriptions", o.MaxSubscriptions, 1, 100_000),
		between("MaxQueuedBytes", o.MaxQueuedBytes, o.QueueBytes, math.MaxInt),
		between("MaxUnfinishedBytes", o.MaxUnfinishedBytes, 2*o.MaxMessageBytes+64<<10, math.MaxInt),
		between("PingPeriod", o.PingPeriod, time.Second, 10*time.Minute),
		between("WriteTimeout", o.WriteTimeout, 100*time.Millisecond, 5*time.Minute),
		between("StoreTimeout", o.StoreTimeout, 10*time.Millisecond, time.Minute))
	if err != nil {
		return err
	}
	if o.StreamTime > 0 {
		if err := between("StreamTime", o.StreamTime, time.Second, 24*time.Hour); err != nil {
			return fmt.Errorf("%w, or negative: never", err)
		}
	}
	if o.PingPeriod%time.Second != 0 {
		return fmt.Errorf("channels: Options.PingPeriod is %v; it must be 1s to 10m0s, in whole seconds", o.PingPeriod)
	}
	if o.DrainDelay < 0 || o.DrainDelay > 10*time.Minute {
		return fmt.Errorf("channels: Options.DrainDelay is %v; it must be 0 to 10m0s", o.DrainDelay)
	}
	if o.DrainTime > 10*time.Minute {
		return fmt.Errorf("channels: Options.DrainTime is %v; it must be up to 10m0s", o.DrainTime)
	}
	if err := replica.CheckID(o.ReplicaID); err != nil {
		return fmt.Errorf("channels: Options.ReplicaID %w", err)
	}
	if o.Mesh != nil && o.Store == nil {
		return fmt.Errorf("channels: Options.Mesh is set, but Options.Store is not: each replica would have its own list, presence and history; give all replicas a shared Store, or store.NewMemory if this is meant")
	}
	if m, ok := o.Mesh.(mesh.Identified); ok && m.ReplicaID() != o.ReplicaID {
		return fmt.Errorf("channels: Options.ReplicaID is %q, but Options.Mesh has the id %q, so that other replicas would see two: give both the same, or leave Options.ReplicaID empty", o.ReplicaID, m.ReplicaID())
	}
	if l, ok := o.Mesh.(mesh.Limiter); ok && o.MaxMessageBytes > l.MaxBody() {
		return fmt.Errorf("channels: Options.MaxMessageBytes is %d, but Options.Mesh takes bodies of up to %d: subscribers of other replicas would miss the larger ones; set MaxMessageBytes to that or less, or raise the mesh's own limit", o.MaxMessageBytes, l.MaxBody())
	}
	for _, s := range o.AllowedOrigins {
		if err := origin.Check(s); err != nil {
			return fmt.Errorf("channels: Options.AllowedOrigins has %w", err)
		}
	}
	for _, s := range o.Hosts {
		if err := origin.CheckHost(s); err != nil {
			return fmt.Errorf("channels: Options.Hosts has %w", err)
		}
	}
	return nil
}

// check says what is wrong with a channel's options. maxBytes is
// Options.MaxMessageBytes.
func (o *ChannelOptions) check(maxBytes int) error {
	switch {
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > maxBytes:
		return fmt.Errorf("ChannelOptions.MaxMessageBytes is %d; it must be 1 to %d (Options.MaxMessageBytes), or 0 for that", o.MaxMessageBytes, maxBytes)
	case o.HistorySize < 0 || o.HistorySize > 10_000_000:
		return fmt.Errorf("ChannelOptions.HistorySize is %d; it must be 0 to 10000000", o.HistorySize)
	case o.HistoryTTL < 0 || o.HistoryTTL > 0 && o.HistoryTTL < time.Millisecond:
		return fmt.Errorf("ChannelOptions.HistoryTTL is %v; it must be 1ms or more, or 0 for 24h", o.HistoryTTL)
	case o.HistorySize == 0 && o.HistoryTTL > 0:
		return fmt.Errorf("ChannelOptions.HistoryTTL is %v, but HistorySize is 0: set how many messages to keep", o.HistoryTTL)
	case o.HistorySize > 0 && o.SlowSubscriber != SlowClose:
		return fmt.Errorf("ChannelOptions.SlowSubscriber drops messages, but the channel has history, which promises every message; with history it must be SlowClose")
	case !o.SlowSubscriber.policy().Known():
		return fmt.Errorf("ChannelOptions.SlowSubscriber is %d; it must be SlowClose, SlowDropOldest or SlowKeepLatest", o.SlowSubscriber)
	case o.Presence > PresenceEvents:
		return fmt.Errorf("ChannelOptions.Presence is %d; it must be PresenceOff, PresenceList or PresenceEvents", o.Presence)
	case o.PresenceBy > PresenceByUser:
		return fmt.Errorf("ChannelOptions.PresenceBy is %d; it must be PresenceByConnection or PresenceByUser", o.PresenceBy)
	case o.PresenceBy == PresenceByUser && o.Presence == PresenceOff:
		return fmt.Errorf("ChannelOptions.PresenceBy is PresenceByUser, but Presence is PresenceOff: set it to PresenceList or PresenceEvents")
	case o.PresenceGrace < 0 || o.PresenceGrace > time.Hour:
		return fmt.Errorf("ChannelOptions.PresenceGrace is %v; it must be 0 to 1h0m0s", o.PresenceGrace)
	case o.PresenceGrace > 0 && o.PresenceBy != PresenceByUser:
		return fmt.Errorf("ChannelOptions.PresenceGrace is %v, but PresenceBy is PresenceByConnection: a connection never comes back, so set PresenceByUser", o.PresenceGrace)
	case o.Publishers > PublishersServer:
		return fmt.Errorf("ChannelOptions.Publishers is %d; it must be PublishersAnyone, PublishersIdentified or PublishersServer", o.Publishers)
	}
	if o.HistorySize > 0 && o.HistoryTTL == 0 {
		o.HistoryTTL = 24 * time.Hour
	}
	return nil
}
