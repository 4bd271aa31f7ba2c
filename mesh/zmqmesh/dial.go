package zmqmesh

import (
	"context"
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

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

// How long it takes until an address is dialled again.
const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second      // and up to as much again, at random
	holds      = 5 * time.Second  // a link that was up this long is dialled again soon
	selfPause  = 15 * time.Second // for this replica's own address, which may become another's
)

// maxCauses bounds how many causes of one address are logged until its link
// holds, because the other side can choose their text.
const maxCauses = 16

// A target is an address that this replica connects to, in a goroutine of its
// own, as long as it is wanted or its link lives.
type target struct {
	address string // tcp://host:port
	// Mesh.mu guards the fields below.
	names  []string // the hosts that its certificate may be for, the likeliest first
	name   string   // the one that it was last for, or ""
	owner  string   // the replica that announces it, or ""
	id     string   // the replica that is there, or "" if unknown
	wanted bool
	aside  bool // it is this replica, or one that is linked by another address
	link   *link
	since  time.Time // when it went down
	err    string
}

// down notes that there is no link. Mesh.mu is held.
func (t *target) down(err string) { t.link, t.since, t.err = nil, time.Now(), err }

var (
	errSelf      = errors.New(reasonSelf)
	errDuplicate = errors.New(reasonDuplicate)

	errAnotherLife = errors.New("zmqmesh: the replica has been restarted")
)

// keep is the goroutine of a target. It ends when the target is not wanted any
// more, or with the mesh.
func (m *Mesh) keep(t *target) {
	backoff := minBackoff
	var gap gap
	told := map[string]bool{} // the causes that were logged since the link last held
	for {
		ended, other, err := m.connect(t)
		if ended != nil && !ended.up.IsZero() && time.Since(ended.up) >= holds { // not if it only took its time to fail
			backoff = minBackoff
			clear(told)
		}
		gap.attempt(m, ended, err)
		m.mu.Lock()
		t.down("")
		t.aside = errors.Is(err, errSelf) || errors.Is(err, errDuplicate)
		if !t.aside {
			t.err = err.Error()
		}
		aside, id, owner := t.aside, t.id, t.owner
		m.mu.Unlock()
		if m.forget(t, &gap) {
			return
		}
		if c := cause(err); !told[c] && len(told) < maxCauses { // not each attempt
			told[c] = true
			m.logDown(t.address, id, owner, aside, err)
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
		select {
		case <-time.After(pause):
		case <-free:
		case <-m.ctx.Done():
		}
		if m.forget(t, &gap) {
			return
		}
	}
}

// logDown logs why there is no link to an address.
func (m *Mesh) logDown(address, id, owner string, aside bool, err error) {
	switch {
	case errors.Is(err, errSelf) && owner != "": // as if two machines both announced 127.0.0.1
		m.log.Warn("mesh: another replica announces an address that leads back to this one; unless this one has just taken that address over, the other needs an address that others can reach (Options.Listen, Advertise)", "peer", owner, "address", address)
	case aside:
		m.log.Debug("mesh: not connecting", "address", address, "err", err)
	case errors.Is(err, errBye), errors.Is(err, syscall.ECONNREFUSED): // as when replicas end and start
		m.log.Info("mesh: link down", "peer", id, "address", address, "err", err)
	default:
		m.log.Warn("mesh: link down", "peer", id, "address", address, "err", err)
	}
}

// cause is what an error says, without this side's port, which differs each time:
// "read tcp 10.0.0.7:51234->10.0.0.8:10021".
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
		m.inbox.Lost("", g.id)
	}
	return true
}

// connect makes a link and runs it until it ends. It returns that link, or nil if
// the handshake failed; the other link to the same replica that is in its place,
// if there is one; and why it has ended.
func (m *Mesh) connect(t *target) (ended, other *link, err error) {
	conn, err := m.dialTarget(t)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(m.ctx, func() { zmtp.HangUp(conn) })
	defer stop()
	defer zmtp.HangUp(conn)

	sec := &shaker{own: m.hello(), key: m.opts.Key, judge: func(peer *hello) (err error) {
		other, err = m.judge(peer)
		return err
	}}
	limit := max(m.opts.MaxPacketBytes, chunkBytes) + 1 + sealBytes
	g := zmtp.NewGuard(conn, zmtp.Rules{Mechanism: mechanism, Limits: zmtp.Limits{Frame: limit, Message: limit, Frames: 1}, Buffer: bufferBytes})
	c, err := g.Shake(sec, zmq4.XSub, m.opts.ReplicaID, false)
	if err != nil {
		return nil, other, err
	}
	if sec.peer.id == m.opts.ReplicaID {
		m.meetTwin(t.address)
		return nil, nil, errOwnID
	}
	l := &link{mesh: m, id: sec.peer.id, life: sec.peer.life, address: t.address, conn: c, guard: g, in: sec.in, out: sec.out,
		wake: bell.New(), gone: make(chan struct{}), done: make(chan struct{})}
	defer close(l.done)
	m.addLink(t, l)
	m.wantAll(l)
	wrote := make(chan struct{})
	go func() { // ends with the link, which waits for it
		defer close(wrote)
		l.write()
	}()
	err = readAll(l.guard, l.in, l.hear)
	l.close(err)
	<-wrote
	m.removeLink(t, l)
	return l, nil, l.err // both goroutines have ended
}

// dialTarget connects. With TLS it tries each name that the certificate may be
// for, beginning with the one that was last right. Each name gets a connection of
// its own, because the other side may choose its certificate by the name.
func (m *Mesh) dialTarget(t *target) (c net.Conn, err error) {
	m.mu.RLock()
	names := slices.Clone(t.names)
	if i := slices.Index(names, t.name); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	m.mu.RUnlock()
	config := m.dialTLS
	byName := config != nil && config.ServerName == ""
	if !byName {
		names = names[:1]
	}
	for _, name := range names {
		if byName {
			config = m.dialTLS.Clone()
			config.ServerName = name
		}
		c, err = zmtp.Dial(m.ctx, strings.TrimPrefix(t.address, "tcp://"), config)
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
