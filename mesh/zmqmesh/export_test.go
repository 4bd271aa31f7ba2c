package zmqmesh

import (
	"net"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

const (
	MaxTopic   = maxTopic
	ChunkBytes = chunkBytes
	MaxWaiting = maxWaiting // questions of a link
)

// NewOn is New on a listener.
func NewOn(o Options, ln net.Listener) (*Mesh, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	return start(o, ln), nil
}

// testRules let the other side send messages of one frame, of 1 MiB.
var testRules = zmtp.Rules{Mechanism: mechanism, Limits: zmtp.Limits{Frame: 1 << 20, Message: 1 << 20, Frames: 1}, Buffer: bufferBytes}

// Shake is the handshake of a replica with this id, life and key, on either side.
// What follows, tests write to c themselves.
func Shake(c net.Conn, id string, life uint64, key []byte, server bool) (*zmq4.Conn, error) {
	typ := zmq4.XSub
	if server {
		typ = zmq4.XPub
	}
	sec := &shaker{own: hello{life: life, max: 1 << 20, id: id}, key: key, judge: func(*hello) error { return nil }}
	return zmtp.NewGuard(c, testRules).Shake(sec, typ, id, server)
}

// Receiving tells whether Receive runs.
func Receiving(m *Mesh) bool { return m.inbox.Receiving() }

// Packets has m take what a link from a replica could bring.
func Packets(m *Mesh, b []byte) error {
	l := &link{mesh: m, id: "peer"}
	return l.packets(b)
}

// Ask has m take what a peer could ask.
func Ask(m *Mesh, b []byte) error {
	p := &peer{mesh: m, topics: map[topic]bool{}, wake: bell.New()}
	defer m.removePeer(p)
	return p.ask(b)
}

// ParseHello parses, and encodes what came out.
func ParseHello(b []byte) ([]byte, error) {
	h, err := parseHello(b)
	return h.append(nil), err
}

// Impostor shakes hands as a listener that does not know the key: it takes any
// proof, and gives a false one. It returns what the dialler answers to that.
func Impostor(c net.Conn) error {
	own := hello{keyed: true, life: 7, max: 1 << 20, id: "impostor"}
	conn, err := zmtp.NewGuard(c, testRules).Shake(&unproved{own: own, then: func(c *zmq4.Conn, proof []byte) error {
		c.Peer.Meta["Socket-Type"] = string(zmq4.XSub)
		return c.SendCmd(zmq4.CmdReady, proof) // the dialler's own
	}}, zmq4.XPub, own.id, true)
	if err != nil {
		return err
	}
	_, err = conn.RecvMsg()
	return err
}

// Stall shakes hands as a listener that says it is this replica, and stops
// before it has proved anything: wait is called in the place of the proof.
func Stall(c net.Conn, id string, keyed bool, wait func()) error {
	own := hello{keyed: keyed, life: 7, max: 1 << 20, id: id}
	_, err := zmtp.NewGuard(c, testRules).Shake(&unproved{own: own, then: func(c *zmq4.Conn, _ []byte) error {
		wait()
		_, err := c.RecvCmd()
		return err
	}}, zmq4.XPub, id, true)
	return err
}

// unproved is the handshake of a listener up to the dialler's proof.
type unproved struct {
	shaker
	own  hello
	then func(c *zmq4.Conn, proof []byte) error
}

func (u *unproved) Handshake(c *zmq4.Conn, _ bool) error {
	if _, err := expect(c, zmq4.CmdHello); err != nil {
		return err
	}
	if err := c.SendCmd(zmq4.CmdWelcome, u.own.append(nil)); err != nil {
		return err
	}
	proof, err := expect(c, zmq4.CmdInitiate)
	if err != nil {
		return err
	}
	return u.then(c, proof)
}

// LinkOver is a link that asks over c, whose other side is a listener, until
// done is closed.
func LinkOver(m *Mesh, c net.Conn, done chan struct{}) error {
	sec := &shaker{own: m.hello(), judge: func(*hello) error { return nil }}
	g := zmtp.NewGuard(c, testRules)
	conn, err := g.Shake(sec, zmq4.XSub, "link", false)
	if err != nil {
		return err
	}
	l := &link{mesh: m, conn: conn, guard: g, wake: bell.New(), gone: done}
	l.write()
	return l.err
}
