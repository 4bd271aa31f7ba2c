package zmqmesh

import (
	"net"
	"net/netip"
	"time"

	"github.com/go-zeromq/zmq4"
)

const (
	MaxShaking   = maxShaking
	MaxTopic     = maxTopic
	IdleTimeout  = idleTimeout
	ShakeTimeout = shakeTimeout
	StallTimeout = stallTimeout
	ChunkBytes   = chunkBytes
	Lingering    = lingering
)

// Shake is the handshake of a replica with this id, life and key, on either side.
func Shake(c net.Conn, id string, life uint64, key []byte, server bool) (*zmq4.Conn, error) {
	typ := zmq4.XSub
	if server {
		typ = zmq4.XPub
	}
	sec := &shaker{own: hello{life: life, max: 1 << 20, id: id}, key: key, judge: func(*hello) error { return nil }}
	g := newGuard(c, mechanism, limits{1 << 20, 1 << 20, 1}, bufferBytes)
	conn, err := g.shake(sec, typ, id, server)
	if err == nil {
		g.w.Reset(unbuffered{c})
	}
	return conn, err
}

// unbuffered is there so that tests can write to the connection themselves.
type unbuffered struct{ net.Conn }

// ShakenGuard is a guard after the handshake.
func ShakenGuard(c net.Conn, frame, message, frames int, ping func([]byte)) net.Conn {
	g := newGuard(c, mechanism, limits{frame, message, frames}, bufferBytes)
	g.shaken, g.greeted, g.ping = true, true, ping
	g.grow()
	return g
}

// OpenGuarded shakes hands as a listener does, and returns the guard.
func OpenGuarded(c net.Conn, sec zmq4.Security, typ zmq4.SocketType, frame, message, frames int) (*zmq4.Conn, error) {
	g := newGuard(c, string(sec.Type()), limits{frame, message, frames}, bufferBytes)
	g.ping = func([]byte) {}
	return g.shake(sec, typ, "test", true)
}

// Receiving tells whether Receive runs.
func Receiving(m *Mesh) bool { return m.receiver.Load() != nil }

// Packets has m take what a link from a replica could bring.
func Packets(m *Mesh, b []byte) error {
	l := &link{mesh: m, id: "peer"}
	return l.packets(b)
}

// Ask has m take what a peer could ask.
func Ask(m *Mesh, b []byte) error {
	p := &peer{mesh: m, topics: map[string]bool{}, wake: make(chan struct{}, 1)}
	defer m.removePeer(p)
	return p.ask(b)
}

// ParseHello parses, and encodes what came out.
func ParseHello(b []byte) ([]byte, error) {
	h, err := parseHello(b)
	return h.append(nil), err
}

// FailAccept has a mesh's listener fail as it does where the process has too
// many files open, until the returned function is called.
func FailAccept(m *Mesh, err error) (mend func()) {
	m.listener.failing.Store(&err)
	return func() { m.listener.failing.Store(nil) }
}

// Impostor shakes hands as a listener that does not know the key: it takes any
// proof, and gives a false one. It returns what the dialler answers to that.
func Impostor(c net.Conn) error {
	g := newGuard(c, mechanism, limits{1 << 20, 1 << 20, 1}, bufferBytes)
	conn, err := g.shake(&impostor{}, zmq4.XPub, "impostor", true)
	if err != nil {
		return err
	}
	_, err = conn.RecvMsg()
	return err
}

type impostor struct{ shaker }

func (*impostor) Handshake(c *zmq4.Conn, _ bool) error {
	if _, err := expect(c, zmq4.CmdHello); err != nil {
		return err
	}
	own := hello{keyed: true, life: 7, max: 1 << 20, id: "impostor"}
	if err := c.SendCmd(zmq4.CmdWelcome, own.append(nil)); err != nil {
		return err
	}
	proof, err := expect(c, zmq4.CmdInitiate)
	if err != nil {
		return err
	}
	c.Peer.Meta["Socket-Type"] = string(zmq4.XSub)
	return c.SendCmd(zmq4.CmdReady, proof) // the dialler's own
}

// Stall shakes hands as a listener that says it is this replica, and stops
// before it has proved anything: wait is called in the place of the proof.
func Stall(c net.Conn, id string, keyed bool, wait func()) error {
	g := newGuard(c, mechanism, limits{1 << 20, 1 << 20, 1}, bufferBytes)
	_, err := g.shake(&staller{hello: hello{keyed: keyed, life: 7, max: 1 << 20, id: id}, wait: wait}, zmq4.XPub, id, true)
	return err
}

type staller struct {
	shaker
	hello hello
	wait  func()
}

func (s *staller) Handshake(c *zmq4.Conn, _ bool) error {
	if _, err := expect(c, zmq4.CmdHello); err != nil {
		return err
	}
	if err := c.SendCmd(zmq4.CmdWelcome, s.hello.append(nil)); err != nil {
		return err
	}
	if _, err := expect(c, zmq4.CmdInitiate); err != nil {
		return err
	}
	s.wait()
	_, err := c.RecvCmd()
	return err
}

// LinkOver is a link that asks over c, whose other side is a listener, until
// done is closed.
func LinkOver(m *Mesh, c net.Conn, done chan struct{}) error {
	sec := &shaker{own: m.hello(), judge: func(*hello) error { return nil }}
	g := newGuard(c, mechanism, limits{1 << 20, 1 << 20, 1}, bufferBytes)
	conn, err := g.shake(sec, zmq4.XSub, "link", false)
	if err != nil {
		return err
	}
	l := &link{mesh: m, conn: conn, guard: g, wake: make(chan struct{}, 1), gone: done}
	l.write()
	return l.err
}

// MaxWaiting is how many questions of a link may wait.
const MaxWaiting = maxWaiting

// A Crowd is a crowd of names.
type Crowd struct{ c crowd[string] }

func (w *Crowd) Add(name, address string) {
	w.c.add(name, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
}
func (w *Crowd) Remove(name string)                 { w.c.remove(name) }
func (w *Crowd) TakeOldest() string                 { return w.c.takeOldest() }
func (w *Crowd) TakeAny(grace time.Duration) string { return w.c.takeAny(grace) }

// Origins is how many addresses it knows.
func (w *Crowd) Origins() int { return len(w.c.from) }
