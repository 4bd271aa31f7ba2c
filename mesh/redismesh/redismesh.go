package redismesh

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/gate"
	"github.com/channels-go/channels/internal/redisclient"
	"github.com/channels-go/channels/internal/replica"
	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/inbox"
)

// Options configures a [Mesh].
type Options struct {
	// Prefix begins the name of every pub/sub channel. Meshes on one Redis with
	// different prefixes, or whose clients select different databases, never
	// see each other's packets. 1 to 100 of A-Z, a-z, 0-9, "-", "_", ".", "/"
	// and ":". Default "channels".
	Prefix string
	// ReplicaID names this replica. No two replicas may have the same id. The
	// hub takes it from the mesh. 1 to 64 of A-Z, a-z, 0-9, "-", "_" and ".".
	// Default: random.
	ReplicaID string
	// MaxBodyBytes is the largest Packet.Body that Publish accepts. Redis
	// closes the connection of a subscriber for which more data waits than the
	// first number of its client-output-buffer-limit for pubsub, by default 32
	// MB. So before you raise MaxBodyBytes, raise that on every server, to at
	// least 1.5 times as much, since Redis counts whole blocks of its memory. 1
	// KiB to 256 MiB. Default 24 MiB, the most that a default Redis delivers.
	MaxBodyBytes int
	// Logger logs when Redis is lost and found. Default slog.Default().
	Logger *slog.Logger
}

const (
	defaultMaxBody = 24 << 20
	maxRest        = 64 << 10 // a packet's bytes besides its body
)

// Mesh is a [mesh.Mesh] over Redis pub/sub. All methods may be called
// concurrently.
type Mesh struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil for one server at a time
	address string
	replica string
	life    uint64 // of this Mesh, drawn at random
	log     *slog.Logger
	links   []*link
	maxBody int
	began   time.Time

	prefixes prefixes // that this replica wants

	seq              atomic.Uint64
	inbox            inbox.Inbox
	dropped, refused atomic.Int64
	warned           sparingly.Turn // about a bad frame
	twinMet          atomic.Int64   // when another life of this id was last heard from, by clock; 0: never

	closing atomic.Bool
	ctx     context.Context // ends within Close
	cancel  context.CancelFunc
	senders gate.Gate
	readers gate.Gate
}

var _ mesh.Identified = (*Mesh)(nil)

// New returns a Mesh that uses client. The caller closes client, after the
// mesh. New waits for nothing: if the server is down, the mesh finds it later;
// until then Status.Err tells why.
//
// client is the result of [redis.NewClient], [redis.NewFailoverClient]
// (Sentinel) or [redis.NewClusterClient]. New refuses a *[redis.Ring]: replicas
// that disagree about which of its servers are up would publish on one server
// and subscribe on another.
func New(client redis.UniversalClient, o Options) (*Mesh, error) {
	o.Prefix = cmp.Or(o.Prefix, "channels")
	if err := redisclient.CheckPrefix(o.Prefix); err != nil {
		return nil, fmt.Errorf("redismesh: Options.Prefix %w", err)
	}
	o.ReplicaID = cmp.Or(o.ReplicaID, replica.NewID())
	if err := replica.CheckID(o.ReplicaID); err != nil {
		return nil, fmt.Errorf("redismesh: Options.ReplicaID %w", err)
	}
	o.MaxBodyBytes = cmp.Or(o.MaxBodyBytes, defaultMaxBody)
	if o.MaxBodyBytes < 1<<10 || o.MaxBodyBytes > 256<<20 {
		return nil, fmt.Errorf("redismesh: Options.MaxBodyBytes is %d; it must be 0 (for 24 MiB) or 1 KiB to 256 MiB", o.MaxBodyBytes)
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	cluster, err := redisclient.Check(client, "carry a mesh: replicas that disagree about which of its servers are up would publish where no other replica listens")
	if err != nil {
		return nil, fmt.Errorf("redismesh: %w", err)
	}
	m := &Mesh{client: client, cluster: cluster, replica: o.ReplicaID, life: rand.Uint64(), maxBody: o.MaxBodyBytes, began: time.Now(), log: o.Logger.With("replica", o.ReplicaID)}
	tags, base := lanes[:1], o.Prefix+":mesh:"
	if cluster != nil {
		m.address, tags = strings.Join(cluster.Options().Addrs, ","), lanes[:]
	} else {
		single := client.(*redis.Client).Options()
		m.address = single.Addr
		if single.DB != 0 { // pub/sub knows no databases
			base += strconv.Itoa(single.DB) + ":"
		}
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, tag := range tags {
		m.links = append(m.links, newLink(m, base+"{"+tag+"}:"))
	}
	for _, l := range m.links {
		m.senders.Run(l.send)
		m.readers.Run(l.run)
		if m.address == failoverAddr {
			m.readers.Run(l.watchMaster)
		}
	}
	return m, nil
}

// lanes are hash tags whose slots are spread evenly over a Cluster. Each
// channel belongs to one lane, and each lane has its own connections. So all
// packets of a channel take the same way, and no server has more than its
// share.
var lanes = [16]string{"18", "3", "83", "223", "19", "2", "95", "663", "265", "34", "908", "49", "985", "22", "405", "48"}

// link returns the link that carries a channel. It is the same on every
// replica.
func (m *Mesh) link(channel string) *link {
	if len(m.links) == 1 {
		return m.links[0]
	}
	h := uint32(2166136261) // FNV-1a
	for i := range len(channel) {
		h = (h ^ uint32(channel[i])) * 16777619
	}
	return m.links[h%uint32(len(m.links))]
}

// Publish implements [mesh.Mesh]. It queues the packet, which goes to Redis
// together with others. It fails while Redis cannot be reached. It ignores ctx,
// since it never waits.
func (m *Mesh) Publish(_ context.Context, p mesh.Packet) error {
	switch {
	case m.closing.Load():
		return mesh.ErrClosed
	case p.Kind >= mesh.KindLost:
		return fmt.Errorf("redismesh: publish: a packet of kind %d; it must be one of those before KindLost", p.Kind)
	case len(p.To) > maxOrigin:
		return fmt.Errorf("redismesh: publish: Packet.To is %.70q; a replica's id has at most %d bytes", p.To, maxOrigin)
	case p.To == m.replica:
		return nil // packets to itself are never delivered
	}
	return m.link(p.Channel).publish(&p)
}

// Subscribe implements [mesh.Mesh]. Once the subscription is active at Redis,
// the mesh delivers a [mesh.KindLost] for the channel.
func (m *Mesh) Subscribe(channel string) error { return m.want(channel, true) }

// Unsubscribe implements [mesh.Mesh].
func (m *Mesh) Unsubscribe(channel string) error { return m.want(channel, false) }

func (m *Mesh) want(channel string, want bool) error {
	if m.closing.Load() {
		return mesh.ErrClosed
	}
	if channel != "" { // packets without a channel always come
		m.link(channel).want(channel, want)
	}
	return nil
}

// Receive implements [mesh.Mesh]. The goroutines that read from Redis, one for
// each connection, call deliver, for one channel at a time. If deliver hangs, so do
// frames of other channels that share its turn, and all losses of all channels.
// Redis closes the connection once its output buffer is full, and Receive cannot end.
func (m *Mesh) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	return m.inbox.Receive(ctx, m.ctx.Done(), deliver)
}

// warnPeriod is the least time between two warnings about bad frames.
const warnPeriod = 10 * time.Second

// refuse counts a frame that cannot be decoded, and logs it at most once in
// warnPeriod.
func (m *Mesh) refuse(name string, err error) {
	m.refused.Add(1)
	if m.warned.Now(warnPeriod) {
		m.log.Warn("mesh: Redis delivered a message that is not a frame of this mesh", "name", name, "err", err)
	}
}

// clock is the time since the mesh was opened. It is monotonic.
func (m *Mesh) clock() time.Duration { return time.Since(m.began) }

// ReplicaID returns Options.ReplicaID, or its default.
func (m *Mesh) ReplicaID() string { return m.replica }

// MaxBody returns Options.MaxBodyBytes.
func (m *Mesh) MaxBody() int { return m.maxBody }

// Status implements [mesh.Mesh]. Redis, even a Cluster, is the only peer. It is
// up if all connections are; its RTT is that of the slowest one.
func (m *Mesh) Status() mesh.Status {
	p := mesh.Peer{Address: m.address, Up: true, Dropped: m.dropped.Load()}
	s := mesh.Status{Dropped: p.Dropped, Lost: m.inbox.Told.Load(), Refused: m.refused.Load()}
	for _, l := range m.links {
		one, err := l.health()
		p.Up = p.Up && one.Up
		p.RTT = max(p.RTT, one.RTT)
		p.Queued += one.Queued
		if one.Since.After(p.Since) {
			p.Since = one.Since
		}
		s.Err = cmp.Or(s.Err, err)
	}
	if s.Err != nil {
		p.Err = s.Err.Error()
	}
	if s.Err == nil && m.hasTwin() {
		s.Err = mesh.ErrTwin
	}
	s.Peers = []mesh.Peer{p}
	return s
}

// twinPeriod is how long a twin counts after it was last heard from. Each
// replica sends a probe to its own name once a second.
const twinPeriod = 10 * time.Second

func (m *Mesh) hasTwin() bool {
	met := m.twinMet.Load()
	return met != 0 && m.clock()-time.Duration(met) < twinPeriod
}

// meetTwin records a frame from another life of this replica's id.
func (m *Mesh) meetTwin() {
	had := m.hasTwin()
	if m.twinMet.Store(int64(max(m.clock(), 1))); !had {
		m.log.Error("mesh: another replica has this one's id; give each replica its own (Options.ReplicaID)")
	}
}

const (
	// closeWait is how long Close waits until Redis has taken what is queued.
	closeWait = 2 * time.Second
	// stopWait is how long Close waits for goroutines that Redis or deliver
	// blocks. The client's own timeouts end them.
	stopWait = 2 * time.Second
)

// Close implements [mesh.Mesh]. It does not close the client.
func (m *Mesh) Close() error {
	if m.closing.Swap(true) {
		<-m.ctx.Done()
		return nil
	}
	for _, l := range m.links {
		l.queue.tell(func() { l.queue.closed = true }) // the sender sends the rest and ends
	}
	m.senders.ShutWithin(closeWait)
	if left := m.Status().Peers[0].Queued; left > 0 {
		m.log.Warn("mesh: closed before Redis had taken all that was queued; the rest is dropped", "bytes", left)
	}
	m.cancel()
	m.senders.ShutWithin(stopWait)
	m.readers.ShutWithin(stopWait)
	return nil
}
