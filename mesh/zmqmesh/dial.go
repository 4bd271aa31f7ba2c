package zmqmesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/steady"
)

// How long it takes until an address is dialled again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second      // and as much again by chance
	holds      = 5 * time.Second  // a link that was up so long is dialled again soon
	selfPause  = 15 * time.Second // the address may become another replica's
)

// maxCauses bounds what is logged of an address until its link holds, as the
// text can be the other side's.
const maxCauses = 16

// A target is an address that this replica connects to, by a goroutine of its
// own, for as long as it is wanted or its link lives.
type target struct {
	address string // tcp://host:port
	// Mesh.mu guards the fields below.
	names  []string // the hosts that its certificate may be for, the likeliest first
	name   string   // that which it was for last, or ""
	owner  string   // the replica that announces it, or ""
	id     string   // "" while it is unknown
	wanted bool
	aside  bool // it is this replica, or one that is linked by another address
	link   *link
	since  time.Time // of being down
	err    string
}

var (
	errSelf      = errors.New(reasonSelf)
	errDuplicate = errors.New(reasonDuplicate)

	errAnotherLife = errors.New("zmqmesh: the replica has another life")
)

// keep is the goroutine of a target. It ends when that is not wanted any more,
// or with the mesh.
func (m *Mesh) keep(t *target) {
	backoff := minBackoff
	var gap gap
	told := map[string]bool{} // the causes that were logged since it last held
	for {
		ended, other, err := m.connect(t)
		if ended != nil && !ended.up.IsZero() && time.Since(ended.up) >= holds { // not where it only took its time to fail
			backoff = minBackoff
			clear(told)
		}
		gap.attempt(m, ended, err)
		m.mu.Lock()
		t.link, t.since, t.err = nil, time.Now(), ""
		t.aside = errors.Is(err, errSelf) || errors.Is(err, errDuplicate)
		if !t.aside {
			t.err = err.Error()
		}
		id, owner := t.id, t.owner
		m.mu.Unlock()
		if m.forget(t, &gap) {
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
		if m.forget(t, &gap) {
			return
		}
	}
}

// cause is what an error says, without this side's port, which is another one
// each time: "read tcp 10.0.0.7:51234->10.0.0.8:10021".
func cause(err error) string { return ownAddress.ReplaceAllString(err.Error(), "") }

var ownAddress = regexp.MustCompile(`\S+->`)

// forget removes a target that is not wanted any more.
func (m *Mesh) forget(t *target, g *gap) bool {
	m.mu.Lock()
	if t.wanted && m.ctx.Err() == nil {
		m.mu.Unlock()
		return false
	}
	delete(m.targets, t.address)
	again := m.links[g.id] != nil // by another address
	m.mu.Unlock()
	if g.id != "" && !again && m.ctx.Err() == nil {
		m.deliverLost("", g.id)
	}
	return true
}

// connect makes a link and holds it until it ends. It returns that link, or nil
// where hands were not shaken, why it has ended, and which other link to the
// same replica is in its place.
func (m *Mesh) connect(t *target) (ended, other *link, err error) {
	conn, err := m.dialTarget(t)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(m.ctx, func() { hangUp(conn) })
	defer stop()
	defer hangUp(conn)

	sec := &shaker{own: m.hello(), key: m.opts.Key, judge: func(peer *hello) (err error) {
		other, err = m.judge(peer)
		return err
	}}
	limit := max(m.opts.MaxPacketBytes, chunkBytes) + 1 + sealBytes
	g := newGuard(conn, mechanism, limits{frame: limit, message: limit, frames: 1}, bufferBytes)
	c, err := g.shake(sec, zmq4.XSub, m.opts.ID, false)
	if err != nil {
		return nil, other, err
	}
	if sec.peer.id == m.opts.ID {
		m.meetTwin(t.address)
		return nil, nil, errOwnID
	}
	l := &link{mesh: m, id: sec.peer.id, life: sec.peer.life, address: t.address, conn: c, guard: g, in: sec.in, out: sec.out,
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
	return l, nil, l.err // both goroutines have ended
}

// dialTarget connects. With TLS it tries the names that the certificate may be
// for, that which was right last first, each with a connection of its own, as
// another name may be answered with another certificate.
func (m *Mesh) dialTarget(t *target) (c net.Conn, err error) {
	m.mu.RLock()
	names := slices.Clone(t.names)
	if i := slices.Index(names, t.name); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	m.mu.RUnlock()
	if m.dialTLS == nil || m.dialTLS.ServerName != "" {
		names = names[:1]
	}
	for _, name := range names {
		c, err = m.dial(t.address, name)
		if wrong := new(x509.HostnameError); errors.As(err, wrong) {
			continue
		}
		if err == nil {
			m.mu.Lock()
			t.name = name
			m.mu.Unlock()
		}
		break
	}
	return c, err
}

func (m *Mesh) dial(address, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(m.ctx, shakeTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(address, "tcp://"))
	if err != nil || m.dialTLS == nil {
		return c, err
	}
	config := m.dialTLS
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = name
	}
	t := tls.Client(steady.NewConn(c), config)
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
		return nil, nil // until it has proved itself
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
		l.owes = l.owes || old.owes || !old.up.IsZero()
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
	if m.twinsWarned.Now(time.Minute) {
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
