package channels

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// Options configure a Hub. The zero value is one process with memory. New
// copies them; later changes have no effect.
type Options struct {
	// Store keeps history, presence and numbers. Default: a [store.Memory]
	// of the hub's own. A Store that is given is not closed by the hub.
	Store store.Store

	// Mesh carries messages between replicas. Default: none, one process. A
	// Mesh that is given is not closed by the hub: close it after Shutdown.
	Mesh mesh.Mesh

	// ReplicaID names this replica: 1 to 64 of A-Z, a-z, 0-9, "-", "_" and
	// ".". No two replicas may share one: if two do, and have a Mesh, both log
	// an error and neither is green. Default: the Mesh's own id if it has one,
	// from which this must not differ; random otherwise.
	ReplicaID string

	// Channel gives each channel its options, by name. It is called when a
	// channel comes to life on this replica, and must give the same answer
	// on every replica. Default: the zero ChannelOptions for all.
	Channel func(name string) ChannelOptions

	// Authorize is asked before anybody from the network subscribes,
	// publishes, or reads history, presence or the list. An error refuses;
	// see [Error] for what the client gets to see. For ActionList the channel
	// is empty: where only names decide, that has to be refused too, or
	// everybody sees the names of all channels. Go code that calls the Hub is
	// trusted and not asked. Default: everything is allowed.
	Authorize func(ctx context.Context, r Request) error

	// AllowedOrigins are the origins besides the app's own from which
	// browsers may connect and publish: "https://app.example.com", or
	// "https://*.example.com" for any subdomain. Those of apps with pages of
	// their own are taken as they stand: "capacitor://localhost", "app://.",
	// "file://", and "null" for pages that tell no origin; but any website can
	// make a frame that tells none. "*" lets every website open WebSockets
	// here with its visitors' cookies. "*" and "null" are only for public
	// data; name the origins otherwise. Default: the app's own origin only.
	AllowedOrigins []string

	// Hosts are the names by which this server is called:
	// "app.example.com", or "*.example.com" for any subdomain. A request whose
	// Host is another is refused with 421: a website can let its own name lead
	// to this machine, and its page is then of the same origin as the hub.
	// Set it where nobody has to show who they are. Localhost and addresses
	// are always answered, as no website has such a name. Default: all names.
	Hosts []string

	// OnConnect is called before a connection is accepted; an error refuses it.
	OnConnect func(ctx context.Context, c Client) error
	// OnDisconnect is called once after each connection that OnConnect let
	// in, also where the handshake fails after it; c has the connection's
	// totals, and reason is nil where the client left by itself.
	OnDisconnect func(c Client, reason error)
	// OnSubscribe is called right after a connection has been subscribed: what it
	// publishes reaches the new subscriber.
	OnSubscribe func(ctx context.Context, c Client, channel string)
	// OnReceive is called before a message from the network is read: for each
	// one over a WebSocket, also where it turns out to be none, each publish
	// over HTTP, each message of a batch, and each that a [Bridge] publishes. An
	// error refuses it. This is the place for limits: middleware.Limiter has an
	// OnReceive. c is the connection; for HTTP and a Bridge it has no ID.
	OnReceive func(ctx context.Context, c Client) error
	// OnPublish is called before each message is published (the app's own
	// too), in the publisher's goroutine. It may change the message's header
	// and body; an error refuses it. Hooks hold no lock and may call the Hub.
	OnPublish func(ctx context.Context, p *Publication) error

	// MaxMessageBytes bounds a message from the network and its body.
	// Default 256 KiB; 1 KiB to 64 MiB, and no more than the Mesh takes.
	MaxMessageBytes int
	// QueueBytes bounds what waits for one slow receiver; then the channel's
	// SlowSubscriber policy applies. Default 1 MiB or 4 × MaxMessageBytes,
	// whichever is more; at least 2 × MaxMessageBytes.
	QueueBytes int
	// MaxChannels bounds the channels that this replica holds at a time. At
	// the bound, a channel without subscribers makes way, the one that was
	// published on longest ago first: what is lost is its number of publishes.
	// Where all have subscribers, the network's new ones on other channels get
	// 503 "too_many_channels"; publishing goes on, and so does the app's own
	// Subscribe. Default 1,000,000.
	MaxChannels int
	// MaxConnections bounds the WebSockets and streams of this replica. Those
	// beyond it get 503 "too_many_connections". Default 1,000,000.
	MaxConnections int
	// MaxConnectionsPerAddress bounds those of one IPv4 address or IPv6 /64
	// network, by Request.RemoteAddr: behind a proxy, put
	// middleware.TrustProxies around the hub, or all clients are one.
	// Default 0: no bound.
	MaxConnectionsPerAddress int
	// MaxQueuedBytes is the sum of what waits for all receivers (a message
	// counts once, since they share its memory) from which new
	// connections get 503 "overloaded". Those that are there lose nothing.
	// Default 1 GiB; at least QueueBytes.
	MaxQueuedBytes int
	// MaxUnfinishedBytes bounds what this replica holds of requests' bodies and
	// WebSocket messages whose rest has not come, inflated where they are
	// compressed. Where that is reached, who holds most for longest is refused
	// with the code "overloaded". Default 64 MiB, or what the longest batch takes;
	// at least 2 × MaxMessageBytes and 64 KiB.
	MaxUnfinishedBytes int
	// CompressBytes is the length from which messages are deflated for
	// clients that can (once for all of them). Default 1024; negative: never.
	// Compression can reveal a secret that shares a message with text that an
	// attacker chooses: turn it off for such messages.
	CompressBytes int
	// PingPeriod is how often silent connections are asked for a sign of
	// life. One that gives none for twice as long is closed. Default 25 s
	// (proxies cut at 60 s); 1 s to 10 min, in whole seconds.
	PingPeriod time.Duration
	// WriteTimeout is how long a connection may take nothing of what is
	// written to it: a slow one that takes something all the time is not cut,
	// until its queue is full. Default 10 s; 100 ms to 5 min. An event stream
	// has to take 4 KiB, and what the system counts as room in a socket's
	// buffer, within that, since net/http does not tell of less.
	WriteTimeout time.Duration
	// StoreTimeout bounds one call of the Store. Default 5 s; 10 ms to 1 min.
	StoreTimeout time.Duration
	// DrainDelay is how long Drain lets all go on after /readyz has begun to
	// say 503, until load balancers have noticed: a few times as long as
	// between two of their probes. Without it, clients and publishes are sent
	// to a port that is closed. Default 0, for where nothing probes; up to
	// 10 min.
	DrainDelay time.Duration
	// DrainTime is over how long Drain spreads the reconnects of many
	// clients. Default 5 s; up to 10 min; negative: at once.
	DrainTime time.Duration

	// StreamTime is after what time an event stream ends, give or take a
	// quarter at random. Its client connects again, and with history misses
	// nothing. A proxy may go on reading for a client that has gone: no write
	// tells of that, and its member would stay for ever. Default 15 min; 1 s to
	// 24 h; negative: never.
	StreamTime time.Duration

	// Logger gets one record for what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

// ChannelOptions say what one channel keeps and who may use it.
type ChannelOptions struct {
	// HistorySize is how many messages the channel keeps. 0: no history, and
	// delivery is at most once. With history every message has a position,
	// and clients resume where they were.
	HistorySize int
	// HistoryTTL is how long a message is kept. Default 24 h where HistorySize is set.
	HistoryTTL time.Duration
	// Presence says whether the channel knows who is subscribed. Default off.
	Presence PresenceMode
	// SlowSubscriber is what happens to a subscriber whose queue is full. A
	// channel with history always closes: the client resumes without loss.
	SlowSubscriber SlowPolicy
	// Publishers says who may publish from the network.
	Publishers Publishers
	// MaxMessageBytes bounds the body of a message on this channel, whoever
	// publishes it: many clients give up at a longer line or frame than they
	// expect (Go's bufio.Scanner at 64 KiB, coder/websocket at 32 KiB).
	// Default 0: the bound of Options; at most that.
	MaxMessageBytes int
}

// PresenceMode says what a channel tells of its subscribers.
type PresenceMode uint8

const (
	PresenceOff  PresenceMode = iota
	PresenceList              // Presence and GET …/presence list them
	// PresenceEvents is PresenceList, and subscribers get a "presence" message
	// for each that joins or leaves, at most once: one that a mesh loses is not
	// sent again, and nothing corrects it. The list is right within 2 s of a join
	// or leave on any replica, and within 10 s of a replica's death.
	PresenceEvents
)

// SlowPolicy is what happens to a subscriber whose queue is full.
type SlowPolicy uint8

const (
	SlowClose      SlowPolicy = iota // close it with code 1013; the client connects again
	SlowDropOldest                   // drop the oldest quarter of what waits
	SlowKeepLatest                   // drop all that waits, keep the newest message
)

// Publishers says who may publish on a channel from the network. Go code that
// calls the Hub always may.
type Publishers uint8

const (
	PublishersAnyone     Publishers = iota // whom Authorize lets
	PublishersIdentified                   // the same, if they have an Identity with an ID
	PublishersServer                       // nobody: only the app's Go code
)

func (o *Options) setDefaults() {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.MaxMessageBytes, 256<<10)
	def(&o.QueueBytes, max(1<<20, 4*o.MaxMessageBytes))
	def(&o.MaxChannels, 1_000_000)
	def(&o.MaxConnections, 1_000_000)
	def(&o.MaxQueuedBytes, max(1<<30, o.QueueBytes))
	def(&o.MaxUnfinishedBytes, max(64<<20, 2*o.batchBytes()))
	def(&o.CompressBytes, 1024)
	defTime(&o.PingPeriod, 25*time.Second)
	defTime(&o.WriteTimeout, 10*time.Second)
	defTime(&o.StoreTimeout, 5*time.Second)
	defTime(&o.DrainTime, 5*time.Second)
	defTime(&o.StreamTime, defaultStreamTime)
	if m, ok := o.Mesh.(mesh.Identified); ok && o.ReplicaID == "" {
		o.ReplicaID = m.ID()
	}
	if o.ReplicaID == "" {
		o.ReplicaID = randomID()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Channel == nil {
		o.Channel = func(string) ChannelOptions { return ChannelOptions{} }
	}
}

// batchBytes bounds the body of one POST /v1/publish, and what it publishes:
// as many messages as fit, which may be longer together than one.
func (o *Options) batchBytes() int { return 4*o.MaxMessageBytes + maxBatch*envelopeBytes/8 }

func (o *Options) check() error {
	between := func(field string, v, lo, hi int) error {
		if v < lo || v > hi {
			return fmt.Errorf("channels: Options.%s is %d; it may be %d to %d", field, v, lo, hi)
		}
		return nil
	}
	betweenTime := func(field string, v, lo, hi time.Duration) error {
		if v < lo || v > hi {
			return fmt.Errorf("channels: Options.%s is %v; it may be %v to %v", field, v, lo, hi)
		}
		return nil
	}
	for _, err := range []error{
		between("MaxMessageBytes", o.MaxMessageBytes, 1<<10, 64<<20),
		between("QueueBytes", o.QueueBytes, 2*o.MaxMessageBytes, 1<<30),
		between("MaxChannels", o.MaxChannels, 1, 1<<30),
		between("MaxConnections", o.MaxConnections, 1, 1<<30),
		between("MaxConnectionsPerAddress", o.MaxConnectionsPerAddress, 0, 1<<30),
		between("MaxQueuedBytes", o.MaxQueuedBytes, o.QueueBytes, math.MaxInt),
		between("MaxUnfinishedBytes", o.MaxUnfinishedBytes, 2*o.MaxMessageBytes+64<<10, math.MaxInt),
		betweenTime("PingPeriod", o.PingPeriod, time.Second, 10*time.Minute),
		betweenTime("WriteTimeout", o.WriteTimeout, 100*time.Millisecond, 5*time.Minute),
		betweenTime("StoreTimeout", o.StoreTimeout, 10*time.Millisecond, time.Minute),
	} {
		if err != nil {
			return err
		}
	}
	if o.StreamTime > 0 {
		if err := betweenTime("StreamTime", o.StreamTime, time.Second, 24*time.Hour); err != nil {
			return fmt.Errorf("%w, or negative: never", err)
		}
	}
	if o.PingPeriod%time.Second != 0 {
		return fmt.Errorf("channels: Options.PingPeriod is %v; it may be 1s to 10m0s, in whole seconds", o.PingPeriod)
	}
	if o.DrainDelay < 0 || o.DrainDelay > 10*time.Minute {
		return fmt.Errorf("channels: Options.DrainDelay is %v; it may be 0 to 10m0s", o.DrainDelay)
	}
	if o.DrainTime > 10*time.Minute {
		return fmt.Errorf("channels: Options.DrainTime is %v; it may be up to 10m0s", o.DrainTime)
	}
	if len(o.ReplicaID) > 64 || strings.Trim(o.ReplicaID, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return fmt.Errorf("channels: Options.ReplicaID is %q; it may be 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'", o.ReplicaID)
	}
	if o.Mesh != nil && o.Store == nil {
		return fmt.Errorf("channels: Options.Mesh without Options.Store: replicas would each have a list, presence and history of their own; give them a shared Store, or store.NewMemory to say that this is meant")
	}
	if m, ok := o.Mesh.(mesh.Identified); ok && m.ID() != o.ReplicaID {
		return fmt.Errorf("channels: Options.ReplicaID is %q, but Options.Mesh has the id %q, so that others would see two replicas: give both the same, or leave Options.ReplicaID empty", o.ReplicaID, m.ID())
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

// check returns what is contradictory in a channel's options. maxBytes is
// Options.MaxMessageBytes.
func (o *ChannelOptions) check(maxBytes int) error {
	switch {
	case o.MaxMessageBytes < 0 || o.MaxMessageBytes > maxBytes:
		return fmt.Errorf("ChannelOptions.MaxMessageBytes is %d; it may be 0 (the same as Options.MaxMessageBytes) to %d, which is that", o.MaxMessageBytes, maxBytes)
	case o.HistorySize < 0 || o.HistorySize > 10_000_000:
		return fmt.Errorf("ChannelOptions.HistorySize is %d; it may be 0 to 10000000", o.HistorySize)
	case o.HistoryTTL < 0 || o.HistoryTTL > 0 && o.HistoryTTL < time.Millisecond:
		return fmt.Errorf("ChannelOptions.HistoryTTL is %v; it may be 1ms or more", o.HistoryTTL)
	case o.HistorySize == 0 && o.HistoryTTL > 0:
		return fmt.Errorf("ChannelOptions.HistoryTTL is %v, but HistorySize is 0: set how many messages to keep", o.HistoryTTL)
	case o.HistorySize > 0 && o.SlowSubscriber != SlowClose:
		return fmt.Errorf("ChannelOptions.SlowSubscriber drops messages, but the channel has history, which promises each of them; it may be SlowClose")
	case o.SlowSubscriber > SlowKeepLatest:
		return fmt.Errorf("ChannelOptions.SlowSubscriber is %d; it may be SlowClose, SlowDropOldest or SlowKeepLatest", o.SlowSubscriber)
	case o.Presence > PresenceEvents:
		return fmt.Errorf("ChannelOptions.Presence is %d; it may be PresenceOff, PresenceList or PresenceEvents", o.Presence)
	case o.Publishers > PublishersServer:
		return fmt.Errorf("ChannelOptions.Publishers is %d; it may be PublishersAnyone, PublishersIdentified or PublishersServer", o.Publishers)
	}
	if o.HistorySize > 0 && o.HistoryTTL == 0 {
		o.HistoryTTL = 24 * time.Hour
	}
	return nil
}
