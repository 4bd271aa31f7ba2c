package zmqmesh_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// Short names for what all tests of ZMTP share.
var (
	eventually    = basetest.Eventually
	greeting      = zmtptest.Greeting
	frame         = zmtptest.Frame
	readFrame     = zmtptest.ReadFrame
	listen        = basetest.Listen
	accept        = zmtptest.Accept
	write         = zmtptest.Write
	dialFrom      = zmtptest.DialFrom
	requireHungUp = zmtptest.RequireHungUp
	isTimeout     = basetest.IsTimeout
	heap          = basetest.Heap
)

type logbook = basetest.Log

const patience = basetest.Patience

// options are those of a replica in a test.
func options(t testing.TB, id string, changes ...func(*zmqmesh.Options)) zmqmesh.Options {
	o := zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: zmtptest.Logger(t)}
	for _, change := range changes {
		change(&o)
	}
	return o
}

func withKey(key string) func(*zmqmesh.Options) {
	return func(o *zmqmesh.Options) { o.Key = []byte(key) }
}

func withTLS(config *tls.Config) func(*zmqmesh.Options) {
	return func(o *zmqmesh.Options) { o.TLS = config }
}

func withLog(log *logbook) func(*zmqmesh.Options) {
	return func(o *zmqmesh.Options) { o.Logger = log.Logger() }
}

// newMesh opens the mesh of a replica until the test ends.
func newMesh(t testing.TB, id string, changes ...func(*zmqmesh.Options)) *zmqmesh.Mesh {
	t.Helper()
	m, err := zmqmesh.New(options(t, id, changes...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// dial connects to a mesh as any stranger can.
func dial(t *testing.T, m *zmqmesh.Mesh) net.Conn { return zmtptest.Dial(t, m.Address()) }

// join connects to a mesh as a replica would, without a deadline.
func join(t *testing.T, m *zmqmesh.Mesh, id string) (*net.TCPConn, *zmq4.Conn) {
	t.Helper()
	c := dial(t, m)
	conn, err := zmqmesh.Shake(c, id, 1, nil, false)
	require.NoError(t, err)
	return c.(*net.TCPConn), conn
}

// question asks for an echo.
func question(number byte) []byte {
	return frame(0, "\x02\x00\x00\x00\x00\x00\x00\x00"+string(rune(number)))
}

// link links m to another replica, and returns what m receives from then on.
func link(t testing.TB, m *zmqmesh.Mesh, id, address string) *inbox {
	t.Helper()
	in := receive(t, m)
	m.SetPeers(map[string]string{id: address})
	in.await(t, lostOf(id))
	return in
}

// upTo reports whether m's only peers are these, and all of them are up.
func upTo(m *zmqmesh.Mesh, ids ...string) bool {
	peers := m.Status().Peers
	for i, p := range peers {
		if i >= len(ids) || p.ID != ids[i] || !p.Up {
			return false
		}
	}
	return len(peers) == len(ids)
}

func awaitUp(t testing.TB, m *zmqmesh.Mesh, ids ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("links to ", ids), func() bool { return upTo(m, ids...) })
}

func awaitPeers(t testing.TB, m *zmqmesh.Mesh, n int) {
	t.Helper()
	eventually(t, fmt.Sprint("peers: ", n), func() bool { return len(m.Status().Peers) == n })
}

// linkedTo reports whether m has a link that is up to a replica, at this address
// or, if that is empty, at any.
func linkedTo(m *zmqmesh.Mesh, id, address string) bool {
	for _, p := range m.Status().Peers {
		if p.Up && p.ID == id && (address == "" || p.Address == address) {
			return true
		}
	}
	return false
}

// requireWorks links a new replica to m, and sends a packet each way.
func requireWorks(t *testing.T, m *zmqmesh.Mesh, in *inbox, id string, changes ...func(*zmqmesh.Options)) {
	t.Helper()
	friend, err := zmqmesh.New(options(t, id, changes...))
	require.NoError(t, err)
	defer func() { require.NoError(t, friend.Close()) }()
	m.SetPeers(map[string]string{id: friend.Address()})
	theirs := link(t, friend, "m", m.Address())
	in.await(t, lostOf(id))
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Header: "to " + id}))
	require.NoError(t, friend.Publish(t.Context(), mesh.Packet{Header: "from " + id}))
	theirs.await(t, message("to "+id))
	in.await(t, message("from "+id))
	m.SetPeers(nil)
}

// requireApart has m and a new replica with these options dial each other, and
// waits until both have seen that it does not work.
func requireApart(t *testing.T, m *zmqmesh.Mesh, id string, changes ...func(*zmqmesh.Options)) {
	t.Helper()
	refused := m.Status().Refused
	other := newMesh(t, id, changes...)
	other.SetPeers(map[string]string{"m": m.Address()})
	m.SetPeers(map[string]string{id: other.Address()})
	told := func(m *zmqmesh.Mesh, address string) bool { // about that address: an earlier replica may not have gone yet
		for _, p := range m.Status().Peers {
			if p.Address == address && p.Up {
				require.Fail(t, "they are linked")
			}
			if p.Address == address && p.Err != "" {
				return true
			}
		}
		return false
	}
	eventually(t, "both know why not", func() bool { return told(m, other.Address()) && told(other, m.Address()) })
	eventually(t, "it is counted", func() bool { return m.Status().Refused > refused && other.Status().Refused > 0 })
	m.SetPeers(nil)
}

// beats sends the heartbeats of a replica until the test ends.
func beats(t *testing.T, c net.Conn) {
	var running sync.WaitGroup
	running.Go(func() {
		for t.Context().Err() == nil {
			_, _ = c.Write(question(0))
			select {
			case <-time.After(200 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
	})
	t.Cleanup(running.Wait)
}

// A stage is a replica that a test plays: it accepts connections of m.
type stage struct {
	t    *testing.T
	ln   net.Listener
	life uint64
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return &stage{t, listen(t), 7}
}

func (s *stage) address() string { return "tcp://" + s.ln.Addr().String() }

// shake takes a connection up to the end of its handshake.
func (s *stage) shake() (net.Conn, *zmq4.Conn) {
	s.t.Helper()
	c := accept(s.t, s.ln)
	conn, err := zmqmesh.Shake(c, "stage", s.life, nil, true)
	require.NoError(s.t, err)
	return c, conn
}

// accept takes a connection, and answers its first question.
func (s *stage) accept() net.Conn {
	s.t.Helper()
	c, conn := s.shake()
	for {
		msg, err := conn.RecvMsg()
		require.NoError(s.t, err)
		if b := msg.Frames[0]; b[0] == 2 {
			write(s.t, c, frame(0, "E"+string(b[1:])))
			return c
		}
	}
}

func (s *stage) send(c net.Conn, seqs ...uint64) {
	s.t.Helper()
	b := []byte{'P'}
	for _, seq := range seqs {
		b = packet.Append(b, &mesh.Packet{Seq: seq, Header: fmt.Sprint(seq)})
	}
	write(s.t, c, frame(0, string(b)))
}

// tcp is the address of a mesh without "tcp://".
func tcp(m *zmqmesh.Mesh) string { return strings.TrimPrefix(m.Address(), "tcp://") }
