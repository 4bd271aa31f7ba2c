package zmqmesh

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/prefix"
	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/inbox"
)

var (
	_ mesh.Discoverer = (*Mesh)(nil)
	_ mesh.Limiter    = (*Mesh)(nil)
	_ mesh.Identified = (*Mesh)(nil)
)

// A Mesh is a [mesh.Discoverer]. All its methods may be called concurrently.
//
// Lock order: a shard of topics → leftMu; a shard of topics or of index → mu → that
// of a link or a peer. A turn of inbox is held while the hub takes a packet.
type Mesh struct {
	opts     Options
	log      *slog.Logger
	life     uint64 // random; another one after each start
	listener *zmtp.Listener
	dialTLS  *tls.Config // or nil
	address  string

	seq    atomic.Uint64
	index  index               // the channels that other replicas want
	wide   prefix.Index[*peer] // the prefixes that other replicas want
	topics topics              // what this replica wants
	begins prefix.Index[topic] // the prefixes among them
	inbox  inbox.Inbox

	dropped, refused atomic.Int64
	twinsWarned      sparingly.Turn
	twinMet          atomic.Pointer[time.Time] // when another replica with this id was last met, or nil

	leftMu sync.Mutex    // guards the field below
	left   []*subscribed // that may not be wanted any more

	mu       sync.RWMutex // guards the fields below
	peers    map[string]*peer
	links    map[string]*link
	heard    map[string]heard
	hints    map[string]map[string]hint // by source, then by address
	targets  map[string]*target         // by address
	everyone atomic.Pointer[[]*peer]    // peers; changed under mu
	live     atomic.Pointer[[]*link]    // links; changed under mu

	closed  atomic.Bool
	ctx     context.Context // of everything but the listener's connections
	cancel  context.CancelFunc
	leaving chan struct{} // closed by Close
	closing sync.Once
	running sync.WaitGroup // the mesh's own goroutines
}

// heard is the last packet that came from a replica that was linked before.
type heard struct{ life, top uint64 }

const maxPeerConns = 1_024 // connections of replicas to this one

// New opens a mesh: it listens at once, and connects to other replicas in the
// background. It fails if the options contradict each other or the address cannot
// be bound. Close frees what it holds.
func New(o Options) (*Mesh, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	at, _ := zmtp.ParseListen(o.Listen) // check has
	ln, err := net.Listen("tcp", at.HostPort())
	if err != nil {
		return nil, fmt.Errorf("zmqmesh: %w", err)
	}
	return start(o, ln), nil
}

// start runs a mesh with checked options.
func start(o Options, ln net.Listener) *Mesh {
	m := &Mesh{opts: o, log: o.Logger, life: rand.Uint64(), address: cmp.Or(o.Advertise, reachable(ln.Addr())),
		peers: map[string]*peer{}, links: map[string]*link{}, heard: map[string]heard{},
		hints: map[string]map[string]hint{}, targets: map[string]*target{},
		leaving: make(chan struct{})}
	m.everyone.Store(new([]*peer))
	m.live.Store(new([]*link))
	m.ctx, m.cancel = context.WithCancel(context.Background())
	listenTLS, dialTLS := o.tlsConfigs()
	m.dialTLS = dialTLS
	m.listener = zmtp.NewListener(ln, zmtp.ListenerOptions{Name: "mesh", Logger: o.Logger, TLS: listenTLS, Max: maxPeerConns, Refused: &m.refused})
	m.running.Go(func() { m.listener.Serve(m.serve) })
	m.running.Go(func() { m.nowAndEvery(sweepPeriod, m.sweep) })
	if o.DNS != "" {
		told := false
		m.running.Go(func() { m.nowAndEvery(dnsPeriod, func() { told = m.lookUp(told) }) })
	}
	static := map[string]hint{}
	for _, p := range o.Peers {
		static[p] = hint{}
	}
	m.setHints("options", static)
	return m
}

// ReplicaID returns Options.ReplicaID, or its default.
func (m *Mesh) ReplicaID() string { return m.opts.ReplicaID }

// Address is where others reach this replica: Options.Advertise, or what is
// bound, with the real port if a free one was asked for.
func (m *Mesh) Address() string { return m.address }

func (m *Mesh) hello() hello {
	return hello{life: m.life, max: uint32(m.opts.MaxPacketBytes), id: m.opts.ReplicaID}
}

// nowAndEvery calls do at once, and again after each period, until the mesh is closed.
func (m *Mesh) nowAndEvery(period time.Duration, do func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for m.ctx.Err() == nil {
		do()
		select {
		case <-tick.C:
		case <-m.ctx.Done():
		}
	}
}

// Subscribe fails if the channel's name is empty or has more than 512 bytes.
func (m *Mesh) Subscribe(channel string) error {
	return m.change(topic{name: channel}, checkChannel(channel), m.subscribe)
}

// Unsubscribe lets packets go on coming for some seconds. It fails as Subscribe
// does.
func (m *Mesh) Unsubscribe(channel string) error {
	return m.change(topic{name: channel}, checkChannel(channel), m.unsubscribe)
}

// SubscribePrefix fails if the prefix has more than 512 bytes, or a zero byte.
func (m *Mesh) SubscribePrefix(prefix string) error {
	return m.change(topic{prefix, true}, checkPrefix(prefix), m.subscribe)
}

// UnsubscribePrefix lets packets go on coming for some seconds. It fails as
// SubscribePrefix does.
func (m *Mesh) UnsubscribePrefix(prefix string) error {
	return m.change(topic{prefix, true}, checkPrefix(prefix), m.unsubscribe)
}

// change changes whether a topic is wanted; bad says what is wrong with it.
func (m *Mesh) change(t topic, bad error, to func(topic)) error {
	switch {
	case m.closed.Load():
		return mesh.ErrClosed
	case bad != nil:
		return bad
	}
	to(t)
	return nil
}

func checkChannel(channel string) error {
	if channel == "" || len(channel) > maxTopic {
		return fmt.Errorf("zmqmesh: the channel %.100q has %d bytes; it must be 1 to %d", channel, len(channel), maxTopic)
	}
	return nil
}

func checkPrefix(prefix string) error {
	if len(prefix) > maxTopic || strings.Contains(prefix, "\x00") {
		return fmt.Errorf("zmqmesh: the prefix %.100q has %d bytes; it must have at most %d, and no zero byte", prefix, len(prefix), maxTopic)
	}
	return nil
}

// Receive calls deliver from the goroutine that reads a replica's connection. If
// deliver waits, that replica's packets wait too, and so do those of every other
// replica that sends a packet of a channel with the same turn; in the end packets
// are lost.
func (m *Mesh) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	return m.inbox.Receive(ctx, m.leaving, deliver)
}

// Close sends what is queued, for at most Options.Linger, and waits for a
// deliver that is under way.
func (m *Mesh) Close() error {
	m.closing.Do(m.close)
	return nil
}

func (m *Mesh) close() {
	m.mu.Lock()
	m.closed.Store(true)
	m.mu.Unlock()
	close(m.leaving)
	m.listener.Stop()
	if m.opts.Linger > 0 {
		late, cancel := context.WithTimeout(context.Background(), m.opts.Linger)
		defer cancel()
		peers := *m.everyone.Load()
		for _, p := range peers {
			p.leave()
		}
		for _, p := range peers {
			select {
			case <-p.gone: // it has taken everything, and closed
			case <-late.Done():
				p.logRest()
			}
		}
	}
	m.cancel()
	m.listener.Close()
	m.running.Wait()
}
