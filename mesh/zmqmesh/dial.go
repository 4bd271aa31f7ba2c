package zmqmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/go-zeromq/zmq4"
)

// How long it takes until an address is dialled again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second      // and as much again by chance
	steady     = 5 * time.Second  // a link that was up so long is dialled again soon
	selfPause  = 15 * time.Second // the address may become another replica's
	dnsPeriod  = 5 * time.Second
)

// maxCauses bounds what is logged of an address until its link holds, as the
// text can be the other side's.
const maxCauses = 16

// A target is an address that this replica connects to, by a goroutine of its
// own, for as long as it is wanted or its link lives.
type target struct {
	address string // tcp://host:port
	// Mesh.mu guards the fields below.
	name   string // the host that its certificate must be for, or "" for that of the address
	owner  string // the replica that announces it, or ""
	id     string // "" while it is unknown
	wanted bool
	aside  bool // it is this replica, or one that is linked by another address
	link   *link
	since  time.Time // of being down
	err    string
}

// A wish is where an address comes from.
type wish struct{ id, name string }

var (
	errSelf      = errors.New(reasonSelf)
	errDuplicate = errors.New(reasonDuplicate)

	errAnotherLife = errors.New("zmqmesh: the replica has another life")
)

// setWishes replaces what one source of addresses has given, by address.
func (m *Mesh) setWishes(source string, wishes map[string]wish) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return
	}
	m.wishes[source] = wishes
	all := map[string]wish{}
	for _, from := range []string{"options", "dns", "registry"} {
		for address, w := range m.wishes[from] {
			if len(all) < maxPeers {
				all[address] = w
			}
		}
	}
	for address, t := range m.targets {
		_, t.wanted = all[address]
	}
	for address, w := range all {
		t := m.targets[address]
		if t == nil {
			t = &target{address: address, wanted: true, since: time.Now()}
			m.targets[address] = t
			m.running.Go(func() { m.keep(t) })
		}
		t.name, t.owner = w.name, w.id
		if w.id != "" && t.link == nil {
			t.id = w.id
		}
	}
}

// keep is the goroutine of a target. It ends when that is not wanted any more,
// or with the mesh.
func (m *Mesh) keep(t *target) {
	backoff := minBackoff
	told := map[string]bool{} // the causes that were logged since it last held
	for {
		up, other, err := m.connect(t)
		if !up.IsZero() && time.Since(up) >= steady { // not where it only took its time to fail
			backoff = minBackoff
			clear(told)
		}
		m.mu.Lock()
		t.link, t.since, t.err = nil, time.Now(), ""
		t.aside = errors.Is(err, errSelf) || errors.Is(err, errDuplicate)
		if !t.aside {
			t.err = err.Error()
		}
		id, owner := t.id, t.owner
		m.mu.Unlock()
		if m.forget(t) {
			return
		}
		if c := cause(err); !told[c] && len(told) < maxCauses { // not each attempt
			if told[c] = true; errors.Is(err, errSelf) && owner != "" { // as from two machines that both announce 127.0.0.1
				m.log.Warn("mesh: another replica announces an address that leads here; unless this one has just taken its place, it needs an address that others can reach (Options.Listen, Advertise)", "peer", owner, "address", t.address)
			} else if t.aside {
				m.log.Debug("mesh: not connecting", "address", t.address, "err", err)
			} else if errors.Is(err, errBye) || errors.Is(err, syscall.ECONNREFUSED) { // as when replicas end and start
				m.log.Info("mesh: link down", "peer", id, "address", t.address, "err", err)
			} else {
				m.log.Warn("mesh: link down", "peer", id, "address", t.address, "err", err)
			}
		}
		pause := backoff + rand.N(backoff)
		var free <-chan struct{}
		switch {
		case other != nil: // until that link ends
			pause, free = selfPause/2+rand.N(selfPause), other.done
		case errors.Is(err, errSelf):
			pause = selfPause/2 + rand.N(selfPause)
		default:
			backoff = min(2*backoff, maxBackoff)
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-free:
		case <-m.ctx.Done():
		}
		wait.Stop()
		if m.forget(t) {
			return
		}
	}
}

// cause is what an error says, without this side's port, which is another one
// each time: "read tcp 10.0.0.7:51234->10.0.0.8:10021".
func cause(err error) string { return ownAddress.ReplaceAllString(err.Error(), "") }

var ownAddress = regexp.MustCompile(`\S+->`)

// forget removes a target that is not wanted any more.
func (m *Mesh) forget(t *target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.wanted && m.ctx.Err() == nil {
		return false
	}
	delete(m.targets, t.address)
	return true
}

// connect makes a link and holds it until it ends. It returns since when it was
// up, if it was at all, why it has ended, and which other link to the same
// replica is in its place.
func (m *Mesh) connect(t *target) (up time.Time, other *link, err error) {
	m.mu.RLock()
	name := t.name
	m.mu.RUnlock()
	conn, err := m.dialTCP(t.address, name)
	if err != nil {
		return up, nil, err
	}
	stop := context.AfterFunc(m.ctx, func() { hangUp(conn) })
	defer stop()
	defer hangUp(conn)

	sec := &shaker{own: m.hello(), key: m.opts.Key, judge: func(peer *hello) (err error) {
		other, err = m.judge(peer)
		return err
	}}
	limit := max(m.opts.MaxPacketBytes, chunkBytes) + 1
	g := newGuard(conn, mechanism, limits{frame: limit, message: limit, frames: 1})
	c, err := g.shake(sec, zmq4.XSub, m.opts.ID, false)
	if err != nil {
		return up, other, err
	}
	l := &link{mesh: m, id: sec.peer.id, life: sec.peer.life, address: t.address, conn: c, guard: g,
		wake: make(chan struct{}, 1), gone: make(chan struct{}), done: make(chan struct{})}
	defer close(l.done)
	m.addLink(t, l)
	m.wantAll(l)
	wrote := make(chan struct{})
	go func() { // ends with the link, which waits for it
		defer close(wrote)
		l.write()
	}()
	err = l.read()
	l.close(err)
	<-wrote
	m.removeLink(t, l)
	return l.up, nil, l.err // both goroutines have ended
}

func (m *Mesh) dialTCP(address, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(m.ctx, shakeTimeout)
	defer cancel()
	hostport := strings.TrimPrefix(address, "tcp://")
	c, err := new(net.Dialer).DialContext(ctx, "tcp", hostport)
	if err != nil || m.dialTLS == nil {
		return c, err
	}
	config := m.dialTLS
	if config.ServerName == "" {
		config = config.Clone()
		if config.ServerName = name; name == "" {
			config.ServerName, _, _ = net.SplitHostPort(hostport)
		}
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// judge is called in the handshake, before the peer takes the connection for
// the one that counts. It says no where there is a link to the same life of
// the replica, which it returns. As the peer has proved nothing yet, what it
// says of itself ends this connection at most, and keeps no other one waiting.
func (m *Mesh) judge(peer *hello) (other *link, err error) {
	if peer.id == m.opts.ID {
		if peer.life == m.life {
			return nil, errSelf
		}
		return nil, errOwnID
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if l := m.links[peer.id]; l != nil && l.life == peer.life {
		return l, errDuplicate
	}
	return nil, nil
}

// addLink takes in a link that has proved itself, in the place of an earlier
// one: to another life of the replica, or by another address that was dialled
// at the same moment. There, too, the last one stays, as the peer keeps the last.
func (m *Mesh) addLink(t *target, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for old := m.links[l.id]; old != nil; old = m.links[l.id] {
		m.mu.Unlock()
		if old.life == l.life {
			l.before = old.before
			old.close(errDuplicate)
		} else {
			l.before = old.life
			old.close(errAnotherLife)
			if old.before == l.life {
				m.warnTwins(l.id, l.address, old.address)
			}
		}
		<-old.done // so that all it has to deliver comes before
		m.mu.Lock()
	}
	if h := m.heard[l.id]; h.life == l.life {
		l.floor = h.top
		l.top = h.top
	}
	m.links[l.id] = l
	t.link, t.id, t.aside, t.err = l, l.id, false, ""
	m.setLiveLocked()
}

// warnTwins logs, at most once a minute, that the life of a replica has come
// back after another one had taken its place. That of a replica that was
// started again never does.
func (m *Mesh) warnTwins(id, one, other string) {
	now := time.Now().Unix()
	if last := m.twinsWarned.Load(); now-last >= 60 && m.twinsWarned.CompareAndSwap(last, now) {
		m.log.Error("mesh: two replicas have the same id, so each takes the other's place again and again: each must have its own (Options.ID)", "peer", id, "address", one, "other", other)
	}
}

func (m *Mesh) removeLink(t *target, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, l.id)
	t.link, t.since, t.err = nil, time.Now(), l.err.Error() // so that Status never shows two links to a replica
	if len(m.heard) >= maxPeers {
		clear(m.heard)
	}
	m.heard[l.id] = heard{l.life, l.top}
	m.setLiveLocked()
}

func (m *Mesh) setLiveLocked() {
	live := make([]*link, 0, len(m.links))
	for _, l := range m.links {
		live = append(live, l)
	}
	m.live.Store(&live)
}

// lookUp asks the DNS for addresses, until the mesh is closed. What was found
// is kept while it does not answer.
func (m *Mesh) lookUp() {
	host, port, _ := net.SplitHostPort(m.opts.DNS)
	tick := time.NewTicker(dnsPeriod)
	defer tick.Stop()
	told := false
	for {
		ctx, cancel := context.WithTimeout(m.ctx, dnsPeriod)
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		cancel()
		if err == nil {
			wishes := map[string]wish{}
			for _, ip := range found {
				wishes["tcp://"+net.JoinHostPort(ip, port)] = wish{name: host}
			}
			m.setWishes("dns", wishes)
		} else if !told && m.ctx.Err() == nil {
			m.log.Warn("mesh: looking up replicas; those known are kept", "name", host, "err", err)
		}
		told = err != nil
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
	}
}
