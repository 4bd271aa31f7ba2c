package redismesh

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/mesh"
)

// Options configure a [Mesh].
type Options struct {
	// Prefix begins the name of every pub/sub channel. Meshes with different
	// prefixes on one Redis never see each other's packets, nor do those whose
	// clients select different databases. 1 to 100 of A-Z, a-z, 0-9, "-", "_",
	// ".", "/" and ":". Default "channels".
	Prefix string
	// Node is the replica's id, which no other may have: that of the hub's
	// Options.Node. 1 to 64 of A-Z, a-z, 0-9, "-", "_" and ".". Required.
	Node string
	// MaxBodyBytes bounds Packet.Body: Publish refuses what is larger. Redis
	// ends the connection of each subscriber for which more than the first
	// number of its client-output-buffer-limit for pubsub waits, by default
	// 32 MB, so raise that on every server before this: to 1.5 times as much
	// or more, since Redis counts whole blocks of its memory. 1 KiB to
	// 256 MiB. Default 24 MiB, the most that a default Redis delivers.
	MaxBodyBytes int
	// Logger gets a line when Redis is lost and found. Default slog.Default().
	Logger *slog.Logger
}

const (
	defaultMaxBody = 24 << 20
	maxRest        = 64 << 10 // all of a packet beside its body
)

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Mesh is a [mesh.Mesh] over Redis pub/sub. Its methods may be called by many
// goroutines at the same time.
type Mesh struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil for one server at a time
	address string
	node    string
	life    uint64 // of this Mesh, drawn at random
	log     *slog.Logger
	links   []*link
	maxBody int
	began   time.Time

	seq           atomic.Uint64
	dropped, told atomic.Int64
	refused       atomic.Int64
	warned        atomic.Int64 // on clock; 0: never
	twinMet       atomic.Int64 // when another life of this id was heard last, on clock; 0: never
	missed        atomic.Bool  // something came while nobody received

	receiving sync.RWMutex // held while deliver runs; guards it
	deliver   func(mesh.Packet)

	closing atomic.Bool
	ctx     context.Context // ends within Close
	cancel  context.CancelFunc
	senders sync.WaitGroup
	readers sync.WaitGroup
}

var _ mesh.Identified = (*Mesh)(nil)

// New returns a Mesh that uses client, which stays the caller's to close, after
// Close. It waits for nothing: a server that is down now is found later, and
// Status says so meanwhile.
//
// The client is one of [redis.NewClient], [redis.NewFailoverClient] (Sentinel)
// or [redis.NewClusterClient]. A *[redis.Ring] is refused: it would publish on
// one server and subscribe on another where they do not agree which is up.
func New(client redis.UniversalClient, o Options) (*Mesh, error) {
	if o.Prefix == "" {
		o.Prefix = "channels"
	}
	if len(o.Prefix) > 100 || strings.Trim(o.Prefix, letters+"-_./:") != "" {
		return nil, fmt.Errorf("redismesh: Options.Prefix is %.110q; it may be 1 to 100 of A-Z, a-z, 0-9, '-', '_', '.', '/' and ':'", o.Prefix)
	}
	if o.Node == "" || len(o.Node) > maxOrigin || strings.Trim(o.Node, letters+"-_.") != "" {
		return nil, fmt.Errorf("redismesh: Options.Node is %.70q; it has to be the replica's id, 1 to %d of A-Z, a-z, 0-9, '-', '_' and '.'", o.Node, maxOrigin)
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = defaultMaxBody
	}
	if o.MaxBodyBytes < 1<<10 || o.MaxBodyBytes > 256<<20 {
		return nil, fmt.Errorf("redismesh: Options.MaxBodyBytes is %d; it may be 1 KiB to 256 MiB", o.MaxBodyBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	m := &Mesh{client: client, node: o.Node, maxBody: o.MaxBodyBytes, began: time.Now(), log: o.Logger.With("node", o.Node)}
	tags, base := lanes[:1], o.Prefix+":mesh:"
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redismesh: the client is nil; it may be what redis.NewClient, NewFailoverClient or NewClusterClient returns")
	case *redis.Ring:
		return nil, errors.New("redismesh: a redis.Ring cannot carry a mesh: replicas that do not agree which of its servers are up would publish where nobody listens; use a Redis Cluster, Sentinel or a single server")
	case *redis.Client:
		if c == nil {
			return nil, errors.New("redismesh: the client is a nil *redis.Client")
		}
		m.address = c.Options().Addr
		if db := c.Options().DB; db != 0 { // pub/sub knows no databases
			base += strconv.Itoa(db) + ":"
		}
	case *redis.ClusterClient:
		if c == nil {
			return nil, errors.New("redismesh: the client is a nil *redis.ClusterClient")
		}
		m.cluster, m.address, tags = c, strings.Join(c.Options().Addrs, ","), lanes[:]
	default:
		return nil, fmt.Errorf("redismesh: the client is a %T; it may be a *redis.Client or a *redis.ClusterClient", client)
	}
	var life [8]byte
	rand.Read(life[:]) // never fails
	m.life = binary.BigEndian.Uint64(life[:])
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, tag := range tags {
		m.links = append(m.links, newLink(m, base+"{"+tag+"}:"))
	}
	for _, l := range m.links {
		m.senders.Go(l.send)
		m.readers.Go(l.run)
		if m.address == failoverAddr {
			m.readers.Go(l.watchMaster)
		}
	}
	return m, nil
}

// lanes are hash tags whose slots are spread evenly over a Cluster: each
// channel belongs to one, and each has a connection, so that all of a
// channel's packets take one way and no server has more than its share.
var lanes = [16]string{"18", "3", "83", "223", "19", "2", "95", "663", "265", "34", "908", "49", "985", "22", "405", "48"}

// link returns the one that carries a channel, on every replica.
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

// Publish implements [mesh.Mesh]. The packet is queued, and goes to Redis
// together with others. It fails as long as Redis cannot be reached. ctx does
// not matter, since there is nothing to wait for.
func (m *Mesh) Publish(_ context.Context, p mesh.Packet) error {
	switch {
	case m.closing.Load():
		return mesh.ErrClosed
	case p.Kind >= mesh.KindLost:
		return fmt.Errorf("redismesh: publish: a packet of kind %d; it may be KindMessage, KindPresence or KindControl", p.Kind)
	case len(p.To) > maxOrigin:
		return fmt.Errorf("redismesh: publish: Packet.To is %.70q; ids of replicas have at most %d bytes", p.To, maxOrigin)
	case p.To == m.node:
		return nil // never one's own
	}
	return m.link(p.Channel).publish(&p)
}

// Subscribe implements [mesh.Mesh]. Once the subscription is active at Redis, a
// [mesh.KindLost] of the channel says so.
func (m *Mesh) Subscribe(channel string) error { return m.want(channel, true) }

// Unsubscribe implements [mesh.Mesh].
func (m *Mesh) Unsubscribe(channel string) error { return m.want(channel, false) }

func (m *Mesh) want(channel string, want bool) error {
	if m.closing.Load() {
		return mesh.ErrClosed
	}
	if channel != "" { // packets without a channel come anyway
		m.link(channel).want(channel, want)
	}
	return nil
}

// Receive implements [mesh.Mesh]. deliver is called by the goroutines that read
// from Redis, one for each connection. Where it hangs, Redis ends the connection
// once its output buffer is full, and Receive cannot end.
func (m *Mesh) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	m.receiving.Lock()
	switch {
	case m.ctx.Err() != nil:
		m.receiving.Unlock()
		return mesh.ErrClosed
	case m.deliver != nil:
		m.receiving.Unlock()
		return errors.New("redismesh: receive: another Receive is running; there may be one at a time")
	}
	m.deliver = deliver
	if m.missed.Swap(false) {
		m.told.Add(1)
		deliver(mesh.Packet{Kind: mesh.KindLost})
	}
	m.receiving.Unlock()
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-m.ctx.Done():
		err = mesh.ErrClosed
	}
	m.receiving.Lock()
	defer m.receiving.Unlock()
	m.deliver = nil
	return err
}

// lost tells of a loss. Only a link's reader calls it.
func (m *Mesh) lost(channel, origin string) {
	m.receiving.RLock()
	defer m.receiving.RUnlock()
	if m.deliver == nil {
		m.missed.Store(true)
		return
	}
	m.told.Add(1)
	m.deliver(mesh.Packet{Kind: mesh.KindLost, Channel: channel, Origin: origin})
}

// warnPeriod is how often what is not understood is logged.
const warnPeriod = 10 * time.Second

// refuse counts a frame that is not understood, and logs one in a while.
func (m *Mesh) refuse(name string, err error) {
	m.refused.Add(1)
	now := m.clock()
	if last := m.warned.Load(); (last == 0 || now-time.Duration(last) >= warnPeriod) && m.warned.CompareAndSwap(last, int64(max(now, 1))) {
		m.log.Warn("mesh: Redis has delivered what is not understood", "name", name, "err", err)
	}
}

// clock is how long the mesh has been open. Nobody sets it back.
func (m *Mesh) clock() time.Duration { return time.Since(m.began) }

// ID is Options.Node.
func (m *Mesh) ID() string { return m.node }

// MaxBody is the largest Packet.Body that Publish takes: Options.MaxBodyBytes.
func (m *Mesh) MaxBody() int { return m.maxBody }

// Status implements [mesh.Mesh]. Redis is the only peer, also where it is a
// Cluster: up when all connections are, its RTT that of the slowest one.
func (m *Mesh) Status() mesh.Status {
	p := mesh.Peer{Address: m.address, Up: true, Dropped: m.dropped.Load()}
	s := mesh.Status{Dropped: p.Dropped, Lost: m.told.Load(), Refused: m.refused.Load()}
	for _, l := range m.links {
		up, since, rtt, err := l.health()
		p.Up = p.Up && up
		p.RTT = max(p.RTT, rtt)
		p.Queued += l.queuedBytes()
		if since.After(p.Since) {
			p.Since = since
		}
		if s.Err == nil {
			s.Err = err
		}
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

// twinPeriod is how long a twin counts that is not heard any more. Each replica
// sends a probe to its own name once a second.
const twinPeriod = 10 * time.Second

func (m *Mesh) hasTwin() bool {
	met := m.twinMet.Load()
	return met != 0 && m.clock()-time.Duration(met) < twinPeriod
}

// meetTwin notes that another life of this replica's id is alive.
func (m *Mesh) meetTwin() {
	had := m.hasTwin()
	if m.twinMet.Store(int64(max(m.clock(), 1))); !had {
		m.log.Error("mesh: another replica has this one's id: each must have its own (Options.Node)")
	}
}

const (
	// closeWait is how long Close waits for Redis to take what is queued.
	closeWait = 2 * time.Second
	// stopWait bounds how long it waits for goroutines that Redis, or deliver,
	// holds up. They end by the client's own timeouts.
	stopWait = 2 * time.Second
)

// Close implements [mesh.Mesh]. The client stays open.
func (m *Mesh) Close() error {
	if m.closing.Swap(true) {
		<-m.ctx.Done()
		return nil
	}
	for _, l := range m.links {
		l.finish()
	}
	within(&m.senders, closeWait)
	m.cancel()
	within(&m.senders, stopWait)
	within(&m.readers, stopWait)
	return nil
}

// within waits for goroutines, but not longer than d.
func within(g *sync.WaitGroup, d time.Duration) {
	done := make(chan struct{})
	go func() { // ends when they have
		g.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}
