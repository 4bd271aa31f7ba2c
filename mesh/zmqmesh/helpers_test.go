package zmqmesh_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

// Short names for what all tests of ZMTP share.
var (
	eventually    = zmtptest.Eventually
	greeting      = zmtptest.Greeting
	frame         = zmtptest.Frame
	readFrame     = zmtptest.ReadFrame
	dialFrom      = zmtptest.DialFrom
	requireHungUp = zmtptest.RequireHungUp
	isTimeout     = zmtptest.IsTimeout
	heap          = zmtptest.Heap
)

type logbook = zmtptest.Log

const patience = zmtptest.Patience

// newHub starts a hub that has no history.
func newHub(t testing.TB, o channels.Options) *channels.Hub {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	hub, err := channels.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, hub.Shutdown(ctx))
	})
	return hub
}

func memory(t *testing.T) store.Store {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// tcp is the address of a mesh without "tcp://".
func tcp(m *zmqmesh.Mesh) string { return strings.TrimPrefix(m.Address(), "tcp://") }

// dial connects to a mesh as any stranger can.
func dial(t *testing.T, m *zmqmesh.Mesh) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", tcp(m))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
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

// requireWorks links a new replica to m, and sends a packet each way.
func requireWorks(t *testing.T, m *zmqmesh.Mesh, in *inbox, o zmqmesh.Options) {
	t.Helper()
	friend, err := zmqmesh.New(o)
	require.NoError(t, err)
	defer func() { require.NoError(t, friend.Close()) }()
	theirs := receive(t, friend)
	friend.SetPeers(map[string]string{"m": m.Address()})
	m.SetPeers(map[string]string{o.ReplicaID: friend.Address()})
	theirs.await(t, lostOf("m"))
	in.await(t, lostOf(o.ReplicaID))
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Header: "to " + o.ReplicaID}))
	require.NoError(t, friend.Publish(t.Context(), mesh.Packet{Header: "from " + o.ReplicaID}))
	theirs.await(t, message("to "+o.ReplicaID))
	in.await(t, message("from "+o.ReplicaID))
	m.SetPeers(nil)
}

// requireApart has m and a new replica with these options dial each other, and
// waits until both have seen that it does not work.
func requireApart(t *testing.T, m *zmqmesh.Mesh, o zmqmesh.Options) {
	t.Helper()
	refused := m.Status().Refused
	other := open(t, o)
	other.SetPeers(map[string]string{"m": m.Address()})
	m.SetPeers(map[string]string{o.ReplicaID: other.Address()})
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

// requireOneWay links a new replica to another one, in one direction.
func requireOneWay(t *testing.T, to *zmqmesh.Mesh, o zmqmesh.Options) {
	t.Helper()
	n := open(t, o)
	in := receive(t, n)
	n.SetPeers(map[string]string{"to": to.Address()})
	eventually(t, "a big packet arrives over TLS", func() bool {
		require.NoError(t, to.Publish(t.Context(), mesh.Packet{Header: "big", Body: make([]byte, 3<<20)}))
		return in.count(message("big")) > 0
	})
}

// beats sends the heartbeats of a replica until the test ends.
func beats(t *testing.T, c net.Conn) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				_, _ = c.Write(frame(0, "\x02\x00\x00\x00\x00\x00\x00\x00\x00"))
			}
		}
	})
	t.Cleanup(func() { close(stop); running.Wait() })
}

// A stage is a replica that a test plays: it accepts connections of m.
type stage struct {
	t    *testing.T
	ln   net.Listener
	life uint64
}

func newStage(t *testing.T) *stage {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return &stage{t, ln, 7}
}

func (s *stage) address() string { return "tcp://" + s.ln.Addr().String() }

// accept takes a connection, and answers its first question.
func (s *stage) accept() net.Conn {
	s.t.Helper()
	c, err := s.ln.Accept()
	require.NoError(s.t, err)
	conn, err := zmqmesh.Shake(c, "stage", s.life, nil, true)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	for {
		msg, err := conn.RecvMsg()
		require.NoError(s.t, err)
		if b := msg.Frames[0]; b[0] == 2 {
			_, err = c.Write(frame(0, "E"+string(b[1:])))
			require.NoError(s.t, err)
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
	_, err := c.Write(frame(0, string(b)))
	require.NoError(s.t, err)
}
