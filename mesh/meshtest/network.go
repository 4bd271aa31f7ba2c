package meshtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/mesh"
)

// A Network connects meshes in one process. Its faults exceed what a Mesh may
// do: with Duplicate or Delay, packets arrive twice and overtake each other,
// and only losses by a cut or a full queue are reported. A hub still repairs
// channels with history. All methods may be called concurrently. Network keeps
// time with timers, so it works in a testing/synctest bubble.
type Network struct {
	mu     sync.Mutex // guards the fields below
	rand   *rand.Rand
	faults Faults
	nodes  map[string]*node
	cut    map[[2]string]bool
	lost   int
}

// Faults are what a network does to packets. The zero value means none: each
// packet arrives once, at once, in order.
type Faults struct {
	Drop      float64       // the share of packets that are lost, 0 to 1
	Duplicate float64       // the share that arrives twice
	Delay     time.Duration // the longest delay; it is random for each packet, so packets overtake each other
}

// NewNetwork returns a network whose faults are drawn from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand:  rand.New(rand.NewPCG(seed, 0)),
		nodes: make(map[string]*node),
		cut:   make(map[[2]string]bool),
	}
}

// SetFaults changes the faults from now on.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Cut loses all packets between two replicas until Heal.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}], n.cut[[2]string{b, a}] = true, true
}

// Heal ends all cuts. The replicas on both sides get a KindLost, as a mesh must
// deliver. They also get it if the other one is closed.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for pair := range n.cut {
		if to := n.nodes[pair[1]]; to != nil {
			to.missed = append(to.missed, pair[0])
			to.woken.Ring()
		}
	}
	clear(n.cut)
}

// Lost returns how many packets the network has lost, by faults and cuts.
func (n *Network) Lost() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// Join returns the mesh of a new replica.
func (n *Network) Join(id string) mesh.Mesh {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &node{net: n, id: id, joined: time.Now(), wants: make(map[string]bool), wide: make(map[string]bool),
		woken: bell.New(), closed: make(chan struct{})}
	n.nodes[id] = d
	return d
}

// maxPackets and maxBytes bound what waits at a replica that does not take it.
const (
	maxPackets = 1 << 16
	maxBytes   = 32 << 20
)

type node struct {
	net    *Network
	id     string
	joined time.Time
	woken  bell.Bell // in or missed has changed
	closed chan struct{}

	// Guarded by net.mu.
	in     []mesh.Packet // arrived and not yet delivered
	wants  map[string]bool
	wide   map[string]bool // prefixes
	seq    uint64
	gone   bool
	bytes  int      // that the packets in in hold
	missed []string // peers with lost packets; reported by Receive

	dropped, told int64
}

func (d *node) Publish(ctx context.Context, p mesh.Packet) error {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.gone {
		return mesh.ErrClosed
	}
	d.seq++
	p.Origin, p.Seq = d.id, d.seq
	if len(p.Trace) > mesh.MaxTraceBytes {
		p.Trace = nil
	}
	for id, to := range n.nodes {
		if to == d || !to.wantsLocked(p) {
			continue
		}
		if n.cut[[2]string{d.id, id}] || n.rand.Float64() < n.faults.Drop {
			n.lost++
			d.dropped++
			continue
		}
		copies := 1
		if n.rand.Float64() < n.faults.Duplicate {
			copies = 2
		}
		for range copies {
			own := p
			own.Body, own.Info, own.Trace = append([]byte(nil), p.Body...), append([]byte(nil), p.Info...), append([]byte(nil), p.Trace...)
			if n.faults.Delay == 0 {
				to.arriveLocked(own)
				continue
			}
			time.AfterFunc(time.Duration(n.rand.Int64N(int64(n.faults.Delay))), func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				to.arriveLocked(own)
			})
		}
	}
	return nil
}

func (d *node) wantsLocked(p mesh.Packet) bool {
	if p.To != "" {
		return p.To == d.id
	}
	if p.Channel == "" || d.wants[p.Channel] {
		return true
	}
	for prefix := range d.wide {
		if strings.HasPrefix(p.Channel, prefix) {
			return true
		}
	}
	return false
}

func (d *node) arriveLocked(p mesh.Packet) {
	if d.gone {
		return
	}
	if len(d.in) == maxPackets || len(d.in) > 0 && d.bytes+held(&p) > maxBytes {
		d.net.lost++
		if !slices.Contains(d.missed, p.Origin) {
			d.missed = append(d.missed, p.Origin)
		}
		return
	}
	d.bytes += held(&p)
	d.in = append(d.in, p)
	d.woken.Ring()
}

// held is what a waiting packet takes.
func held(p *mesh.Packet) int { return len(p.Body) + len(p.Info) + len(p.Trace) }

// next removes and returns the next packet.
func (d *node) next() (mesh.Packet, bool) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	if len(d.in) == 0 {
		return mesh.Packet{}, false
	}
	p := d.in[0]
	d.in[0] = mesh.Packet{}
	if d.in = d.in[1:]; len(d.in) == 0 {
		d.in = nil
	}
	return p, true
}

// taken subtracts a delivered packet. Once there is room for new packets, it
// returns the peers with lost packets.
func (d *node) taken(bytes int) (missed []string) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.bytes -= bytes
	if len(d.missed) == 0 || d.bytes > maxBytes/2 || len(d.in) > maxPackets/2 {
		return nil
	}
	missed, d.missed = d.missed, nil
	d.told += int64(len(missed))
	return missed
}

func (d *node) Subscribe(channel string) error   { return d.want(d.wants, channel, true) }
func (d *node) Unsubscribe(channel string) error { return d.want(d.wants, channel, false) }

func (d *node) SubscribePrefix(prefix string) error   { return d.want(d.wide, prefix, true) }
func (d *node) UnsubscribePrefix(prefix string) error { return d.want(d.wide, prefix, false) }

func (d *node) want(in map[string]bool, name string, want bool) error {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	if d.gone {
		return mesh.ErrClosed
	}
	if want {
		in[name] = true
	} else {
		delete(in, name)
	}
	return nil
}

func (d *node) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	for {
		select {
		case <-d.closed:
			return mesh.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if p, ok := d.next(); ok {
			n := held(&p)
			deliver(p)
			clear(p.Body) // exposes a deliver that keeps it
			clear(p.Info)
			clear(p.Trace)
			d.tell(n, deliver)
			continue
		}
		d.tell(0, deliver)
		select {
		case <-d.closed:
		case <-ctx.Done():
		case <-d.woken:
		}
	}
}

func (d *node) tell(taken int, deliver func(mesh.Packet)) {
	for _, id := range d.taken(taken) {
		deliver(mesh.Packet{Kind: mesh.KindLost, Origin: id})
	}
}

func (d *node) Status() mesh.Status {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := mesh.Status{Dropped: d.dropped, Lost: d.told}
	for id, peer := range n.nodes {
		if id != d.id {
			s.Peers = append(s.Peers, mesh.Peer{ID: id, Up: !n.cut[[2]string{d.id, id}], Since: peer.joined})
		}
	}
	slices.SortFunc(s.Peers, func(a, b mesh.Peer) int { return strings.Compare(a.ID, b.ID) })
	return s
}

func (d *node) Close() error {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	if !d.gone {
		d.gone = true
		close(d.closed)
		for pair := range d.net.cut { // this cut will not be healed
			if to := d.net.nodes[pair[1]]; pair[0] == d.id && to != nil {
				to.missed = append(to.missed, d.id)
				to.woken.Ring()
			}
		}
		delete(d.net.nodes, d.id)
	}
	return nil
}
