package zmqmesh

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/internal/zmqaddr"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

var (
	_ mesh.Discoverer    = (*Mesh)(nil)
	_ mesh.AllSubscriber = (*Mesh)(nil)
	_ mesh.Limiter       = (*Mesh)(nil)
	_ mesh.Identified    = (*Mesh)(nil)
)

// A Mesh is a [mesh.Discoverer]. All its methods may be called by many
// goroutines at the same time.
type Mesh struct {
	// Locks are taken in this order: a shard of topics or of index, mu, that of
	// a link or a peer.

	opts     Options
	log      *slog.Logger
	life     uint64 // random; another one after each start
	opened   time.Time
	listener *listener
	dialTLS  *tls.Config // or nil
	address  string

	seq    atomic.Uint64
	index  index  // what peers want
	topics topics // what this replica wants
	turns  [shards]turn
	// receiver is the deliver of the Receive that runs, or nil. Who calls it
	// holds the turn of the channel.
	receiver atomic.Pointer[func(mesh.Packet)]
	missed   atomic.Bool // something came while no Receive ran

	dropped, lost, refused atomic.Int64
	twinsWarned            sparingly.Turn
	twinMet                atomic.Int64 // when a replica of this one's id was met last, in nanoseconds of the clock; 0: never

	leftMu sync.Mutex // guards the field below
	left   []*topic   // that may not be wanted any more

	mu       sync.RWMutex // guards the fields below
	peers    map[string]*peer
	links    map[string]*link
	heard    map[string]heard
	wishes   map[string]map[string]wish // by source
	targets  map[string]*target         // by address
	everyone atomic.Pointer[[]*peer]    // peers; changed under mu
	overhear atomic.Pointer[[]*peer]    // those that want all channels; changed under mu
	live     atomic.Pointer[[]*link]    // links; changed under mu

	closed  atomic.Bool
	ctx     context.Context // of everything but the listener's connections
	cancel  context.CancelFunc
	leaving chan struct{}  // closed by Close
	gone    chan struct{}  // closed when it is done
	running sync.WaitGroup // the mesh's own goroutines
}

// heard is how far a replica that was linked has got.
type heard struct{ life, top uint64 }

// A turn is held while a packet is delivered, by channel.
type turn struct {
	sync.Mutex
	_ [56]byte // so that two of them share no cache line
}

// New opens a mesh: it listens at once, and connects to peers in the
// background. It fails where the options contradict themselves or the address
// cannot be bound. Close frees what it holds.
func New(o Options) (*Mesh, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	at, _ := zmqaddr.Parse(o.Listen) // as check has
	ln, err := net.Listen("tcp", at.HostPort())
	if err != nil {
		return nil, fmt.Errorf("zmqmesh: %w", err)
	}
	var life [8]byte
	rand.Read(life[:]) // never fails
	m := &Mesh{opts: o, log: o.Logger, life: binary.BigEndian.Uint64(life[:]), opened: time.Now(), address: o.Advertise,
		peers: map[string]*peer{}, links: map[string]*link{}, heard: map[string]heard{},
		wishes: map[string]map[string]wish{}, targets: map[string]*target{},
		leaving: make(chan struct{}), gone: make(chan struct{})}
	if m.address == "" {
		m.address = reachable(ln.Addr())
	}
	m.everyone.Store(new([]*peer))
	m.overhear.Store(new([]*peer))
	m.live.Store(new([]*link))
	m.ctx, m.cancel = context.WithCancel(context.Background())
	listenTLS, dialTLS := o.tlsConfigs()
	m.listener, m.dialTLS = newListener(ln, "mesh", listenTLS, o.Logger, maxPeerConns, &m.refused), dialTLS
	m.running.Go(func() { m.listener.serve(m.serve) })
	m.running.Go(m.tick)
	if o.DNS != "" {
		m.running.Go(m.lookUp)
	}
	static := map[string]wish{}
	for _, p := range o.Peers {
		static[p] = wish{}
	}
	m.setWishes("options", static)
	return m, nil
}

// ID is Options.ID.
func (m *Mesh) ID() string { return m.opts.ID }

// Address is where others reach this replica: Options.Advertise, or what is
// bound, also where port 0 was asked for.
func (m *Mesh) Address() string { return m.address }

// SetPeers connects to these replicas besides Options.Peers and Options.DNS.
// Addresses that cannot be connected to are logged and left out.
func (m *Mesh) SetPeers(addresses map[string]string) {
	wishes := make(map[string]wish, len(addresses))
	for id, address := range addresses {
		if id == m.opts.ID {
			continue
		}
		if err := checkReachable("the registry", address); err != nil {
			m.log.Warn("mesh: a replica announces no address", "peer", id, "err", err)
			continue
		}
		wishes[address] = wish{id: id}
	}
	m.setWishes("registry", wishes)
}

// tick leaves channels, until the mesh is closed.
func (m *Mesh) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			m.sweep()
		case <-m.ctx.Done():
			return
		}
	}
}

func (m *Mesh) hello() hello {
	return hello{life: m.life, max: uint32(m.opts.MaxPacketBytes), id: m.opts.ID}
}

var (
	errOwnID = errors.New("zmqmesh: the peer has this replica's id: each must have its own (Options.ID)")
	errAgain = errors.New("zmqmesh: the peer has connected again")
)

// serve holds the connection of a peer until it ends. An error says why it was
// turned away.
func (m *Mesh) serve(c net.Conn, shaken func()) error {
	// Who has dialled itself finds out with the answer, and hangs up.
	sec := &shaker{own: m.hello(), key: m.opts.Key, judge: func(*hello) error { return nil }}
	g := newGuard(c, mechanism, peerLimits, bufferBytes)
	conn, err := g.shake(sec, zmq4.XPub, m.opts.ID, true)
	if err != nil {
		var told errTold
		if errors.As(err, &told) && (told.reason == reasonSelf || told.reason == reasonDuplicate) {
			return nil
		}
		if g.silent() && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // it only looked whether the port is open
		}
		return err
	}
	if sec.peer.id == m.opts.ID {
		m.refused.Add(1)
		m.meetTwin(c.RemoteAddr().String()) // which says so less often than it comes
		return nil
	}
	shaken()
	p := &peer{mesh: m, id: sec.peer.id, from: c.RemoteAddr().String(), life: sec.peer.life, max: int(sec.peer.max), since: time.Now(),
		conn: conn, guard: g, in: sec.in, out: sec.out, topics: map[string]bool{},
		wake: make(chan struct{}, 1), gone: make(chan struct{}), wrote: make(chan struct{})}
	if !m.addPeer(p) {
		return nil
	}
	go p.write() // ends with the connection; read's goroutine waits for it
	err = p.read()
	p.close(err)
	<-p.wrote
	m.removePeer(p)
	if errors.Is(err, errSeal) {
		return err
	}
	m.log.Debug("mesh: a peer has gone", "peer", p.id, "from", p.from, "err", err)
	return nil
}

// addPeer takes a peer in, in the place of an earlier connection of it: a
// replica has only one, so that one is dead, even if it does not know.
func (m *Mesh) addPeer(p *peer) bool {
	m.mu.Lock()
	old := m.peers[p.id]
	if m.closed.Load() {
		m.mu.Unlock()
		return false
	}
	m.peers[p.id] = p
	twins := false
	if old != nil {
		if p.before = old.life; old.life == p.life {
			p.before = old.before
		}
		twins = old.life != p.life && old.before == p.life
	}
	m.setEveryoneLocked()
	m.mu.Unlock()
	if twins {
		m.warnTwins(p.id, p.from, old.from)
	}
	if old != nil {
		m.log.Info("mesh: a peer has connected again, in the place of its earlier connection", "peer", p.id, "from", p.from, "before", old.from)
		old.close(errAgain) // from now on it drops nothing
		old.mu.Lock()
		dropped := old.dropped
		old.mu.Unlock()
		p.mu.Lock()
		p.dropped += dropped
		p.mu.Unlock()
	}
	return true
}

func (m *Mesh) removePeer(p *peer) {
	for ch := range p.topics {
		m.leave(ch, p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[p.id] == p {
		delete(m.peers, p.id)
		m.setEveryoneLocked()
	}
}

// leave takes a peer's subscription back.
func (m *Mesh) leave(channel string, p *peer) {
	if channel == "" {
		m.setOverhearing(p, false)
	} else {
		m.index.remove(channel, p)
	}
}

// setOverhearing says whether a peer wants all channels.
func (m *Mesh) setOverhearing(p *peer, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*m.overhear.Load()), func(other *peer) bool { return other == p })
	if on {
		all = append(all, p)
	}
	m.overhear.Store(&all)
}

func (m *Mesh) setEveryoneLocked() {
	all := make([]*peer, 0, len(m.peers))
	for _, p := range m.peers {
		all = append(all, p)
	}
	m.everyone.Store(&all)
}

// bigPacket is how many bytes make a packet one that peers share.
const bigPacket = chunkBytes / 2

// packetNumbers is more than the numbers before and between the fields have.
const packetNumbers = 64 // bytes

// MaxBody is MaxPacketBytes less what the other fields may have.
func (m *Mesh) MaxBody() int {
	return max(m.opts.MaxPacketBytes-packetNumbers-mesh.MaxFieldBytes, 0)
}

// Publish costs nothing but a look where no peer wants the packet, and
// encodes it once for all that do. It fails where the packet is larger than
// MaxPacketBytes, its channel's name longer than 512 bytes, or where there is no
// peer because none can be accepted.
func (m *Mesh) Publish(_ context.Context, p mesh.Packet) error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	size := packetNumbers + len(p.Channel) + len(p.To) + len(p.Header) + len(p.Body) + len(p.Epoch) + len(p.Sender)
	if size > m.opts.MaxPacketBytes {
		return fmt.Errorf("zmqmesh: a packet of %d bytes on %.100q, where at most %d are allowed (MaxPacketBytes)", size, p.Channel, m.opts.MaxPacketBytes)
	}
	if len(p.Channel) > maxTopic {
		return checkChannel(p.Channel)
	}
	if p.Kind >= mesh.KindLost {
		return fmt.Errorf("zmqmesh: a packet of kind %d, which is none that is sent", p.Kind)
	}
	if len(*m.everyone.Load()) == 0 {
		return m.listener.err()
	}
	s := m.index.shard(p.Channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	var one [1]*peer
	to := s.wanted[p.Channel]
	switch {
	case p.To != "":
		m.mu.RLock()
		one[0] = m.peers[p.To]
		m.mu.RUnlock()
		if to = one[:]; one[0] == nil {
			to = nil
		}
	case p.Channel == "":
		to = *m.everyone.Load()
	default:
		for _, peer := range *m.overhear.Load() {
			if !slices.Contains(to, peer) {
				to = append(to[:len(to):len(to)], peer)
			}
		}
	}
	if len(to) == 0 {
		return nil
	}
	p.Seq = m.seq.Add(1)
	big := size > bigPacket
	var b []byte
	if big {
		b = packet.Append(append(make([]byte, 0, size), sendPackets), &p)
	} else {
		s.scratch = packet.Append(s.scratch[:0], &p)
		b = s.scratch
	}
	for _, peer := range to {
		peer.put(b, big)
	}
	return nil
}

// Subscribe fails where the channel's name is empty or has more than 512 bytes.
func (m *Mesh) Subscribe(channel string) error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	if err := checkChannel(channel); err != nil {
		return err
	}
	m.subscribe(channel)
	return nil
}

// Unsubscribe lets packets go on coming for some seconds, and fails as
// Subscribe does.
func (m *Mesh) Unsubscribe(channel string) error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	if err := checkChannel(channel); err != nil {
		return err
	}
	m.unsubscribe(channel)
	return nil
}

// SubscribeAll is Subscribe for all channels. UnsubscribeAll lets packets go
// on coming for some seconds.
func (m *Mesh) SubscribeAll() error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	m.subscribe("")
	return nil
}

// UnsubscribeAll ends SubscribeAll, and leaves what Subscribe asked for.
func (m *Mesh) UnsubscribeAll() error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	m.unsubscribe("")
	return nil
}

func checkChannel(channel string) error {
	if channel == "" || len(channel) > maxTopic {
		return fmt.Errorf("zmqmesh: the channel %.100q has %d bytes, which must be 1 to %d", channel, len(channel), maxTopic)
	}
	return nil
}

// Receive calls deliver from the goroutine that reads a peer's connection: one
// that waits holds up that peer's packets, which in the end are lost.
func (m *Mesh) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	if !m.receiver.CompareAndSwap(nil, &deliver) {
		return errors.New("zmqmesh: Receive runs already, and only one may")
	}
	if m.missed.Swap(false) {
		m.deliverLost("", "")
	}
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-m.leaving:
		err = mesh.ErrClosed
	}
	m.receiver.Store(nil)
	for i := range m.turns { // what is being delivered ends
		m.turns[i].Lock()
		//lint:ignore SA2001 whoever held it has returned, which is all
		m.turns[i].Unlock()
	}
	return err
}

// deliver hands a packet to the Receive that runs.
func (m *Mesh) deliver(p mesh.Packet) {
	t := &m.turns[shardOf(p.Channel)]
	t.Lock()
	defer t.Unlock()
	deliver := m.receiver.Load()
	if deliver == nil {
		m.missed.Store(true)
		return
	}
	(*deliver)(p)
}

func (m *Mesh) deliverLost(channel, origin string) {
	m.lost.Add(1)
	m.deliver(mesh.Packet{Kind: mesh.KindLost, Channel: channel, Origin: origin})
}

// twinPeriod is how long a twin counts that does not come any more. It dials, or
// is dialled, every 2 seconds.
const twinPeriod = 10 * time.Second

// meetTwin notes that another living replica has this one's id. It has proved
// that it knows the key, if there is one: strangers may say what they like.
func (m *Mesh) meetTwin(address string) {
	m.twinMet.Store(max(int64(time.Since(m.opened)), 1))
	if m.twinsWarned.Now(time.Minute) {
		m.log.Error("mesh: another replica has this one's id, so the two are not linked: each must have its own (Options.ID)", "id", m.opts.ID, "address", address)
	}
}

func (m *Mesh) hasTwin() bool {
	met := m.twinMet.Load()
	return met != 0 && time.Since(m.opened)-time.Duration(met) < twinPeriod
}

// Status is cheap: it looks at each peer.
func (m *Mesh) Status() mesh.Status {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := mesh.Status{Err: m.listener.err(), Dropped: m.dropped.Load(), Lost: m.lost.Load(), Refused: m.refused.Load()}
	if s.Err == nil && m.hasTwin() {
		s.Err = mesh.ErrTwin
	}
	if m.closed.Load() {
		s.Err = mesh.ErrClosed
	}
	known := map[string]bool{}
	add := func(p mesh.Peer) {
		if from := m.peers[p.ID]; from != nil {
			from.mu.Lock()
			p.Queued, p.Dropped = from.queued, from.dropped
			from.mu.Unlock()
		}
		known[p.ID] = true
		s.Peers = append(s.Peers, p)
	}
	for _, t := range m.targets {
		if t.aside {
			continue
		}
		p := mesh.Peer{ID: t.id, Address: t.address, Since: t.since, Err: t.err}
		if l := t.link; l != nil {
			l.mu.Lock()
			if p.RTT = l.rtt; !l.up.IsZero() {
				p.Up, p.Since = true, l.up
			}
			l.mu.Unlock()
		} else if m.links[t.id] != nil {
			continue // by another address
		}
		add(p)
	}
	for id, from := range m.peers {
		if !known[id] {
			add(mesh.Peer{ID: id, Address: from.from, Since: from.since, Err: "its address is not known"})
		}
	}
	slices.SortFunc(s.Peers, func(a, b mesh.Peer) int {
		return strings.Compare(a.ID+"\x00"+a.Address, b.ID+"\x00"+b.Address)
	})
	return s
}

// Close sends what is queued, for at most Options.Linger, and waits for a
// deliver that is under way.
func (m *Mesh) Close() error {
	m.mu.Lock()
	first := m.closed.CompareAndSwap(false, true)
	m.mu.Unlock()
	if !first {
		<-m.gone
		return nil
	}
	defer close(m.gone)
	close(m.leaving)
	m.listener.stop()
	late := time.NewTimer(m.opts.Linger)
	defer late.Stop()
	if m.opts.Linger > 0 {
		m.mu.RLock()
		peers := *m.everyone.Load()
		m.mu.RUnlock()
		for _, p := range peers {
			p.leave()
		}
		for _, p := range peers {
			select {
			case <-p.gone: // it has taken all, and closed
			case <-late.C:
				late.Reset(0)
			}
		}
	}
	m.cancel()
	m.listener.close()
	m.running.Wait()
	return nil
}
