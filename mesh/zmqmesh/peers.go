package zmqmesh

import (
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

// bufferBytes is the size of each buffer of a connection between replicas.
const bufferBytes = 64 << 10

var (
	errOwnID = errors.New("zmqmesh: the other side has this replica's id; each replica must have its own (Options.ReplicaID)")
	errAgain = errors.New("zmqmesh: the replica has connected again")
)

// serve runs the connection of a replica that has dialled this one, until it
// ends. An error says why it was turned away.
func (m *Mesh) serve(c net.Conn, shaken func()) error {
	// A replica that has dialled itself learns that from the answer, and hangs up.
	sec := &shaker{own: m.hello(), key: m.opts.Key, judge: func(*hello) error { return nil }}
	g := zmtp.NewGuard(c, zmtp.Rules{Mechanism: mechanism, Limits: askLimits, Buffer: bufferBytes})
	conn, err := g.Shake(sec, zmq4.XPub, m.opts.ReplicaID, true)
	if err != nil {
		var told errTold
		if errors.As(err, &told) && (told.reason == reasonSelf || told.reason == reasonDuplicate) {
			return nil
		}
		if g.Silent() && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil // it only looked whether the port is open
		}
		return err
	}
	if sec.peer.id == m.opts.ReplicaID {
		m.refused.Add(1)
		m.meetTwin(c.RemoteAddr().String()) // which logs it, less often than it comes
		return nil
	}
	shaken()
	p := &peer{mesh: m, id: sec.peer.id, from: c.RemoteAddr().String(), life: sec.peer.life, max: int(sec.peer.max), since: time.Now(),
		conn: conn, guard: g, in: sec.in, out: sec.out, topics: map[topic]bool{},
		wake: bell.New(), gone: make(chan struct{}), wrote: make(chan struct{})}
	if !m.addPeer(p) {
		return nil
	}
	go p.write() // ends with the connection; this goroutine waits for it
	err = readAll(p.guard, p.in, p.ask)
	p.close(err)
	<-p.wrote
	m.removePeer(p)
	if errors.Is(err, errSeal) {
		return err
	}
	m.log.Debug("mesh: a replica has disconnected", "peer", p.id, "from", p.from, "err", err)
	return nil
}

// addPeer takes a peer in. It replaces an earlier connection of the same replica:
// a replica has only one, so that one is dead, even if it does not know yet.
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
		m.log.Info("mesh: a replica has connected again, and its earlier connection ends", "peer", p.id, "from", p.from, "before", old.from)
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
	for t := range p.topics {
		m.leave(t, p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[p.id] == p {
		delete(m.peers, p.id)
		m.setEveryoneLocked()
	}
}

// leave ends a peer's subscription.
func (m *Mesh) leave(t topic, p *peer) {
	if t.prefix {
		m.wide.Remove(t.name, p)
	} else {
		m.index.remove(t.name, p)
	}
}

func (m *Mesh) setEveryoneLocked() {
	all := slices.Collect(maps.Values(m.peers))
	m.everyone.Store(&all)
}
