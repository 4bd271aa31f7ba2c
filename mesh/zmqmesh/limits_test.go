package zmqmesh_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestMaxBody: a body of MaxBody bytes is accepted and arrives, whatever else is
// in the packet.
func TestMaxBody(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1 << 13, 1 << 16, 1<<20 + 1} {
		a, b := newMesh(t, "a", withMost(most)), newMesh(t, "b", withMost(most))
		var l mesh.Limiter = a
		in := link(t, b, "a", a.Address())
		p := mesh.Packet{To: "b", Channel: strings.Repeat("c", 512), Epoch: strings.Repeat("e", 64), Offset: 1<<64 - 1, Sender: "s",
			Body: make([]byte, l.MaxBody()), Info: make([]byte, 2<<10), Trace: make([]byte, mesh.MaxTraceBytes)}
		p.Header = strings.Repeat("h", mesh.MaxFieldBytes-len(p.To)-len(p.Channel)-len(p.Epoch)-len(p.Sender)-len(p.Info)-len(p.Trace))
		require.NoError(t, a.Publish(t.Context(), p))
		in.await(t, func(got mesh.Packet) bool {
			return got.Header == p.Header && len(got.Body) == l.MaxBody() && len(got.Info) == len(p.Info) && len(got.Trace) == len(p.Trace)
		})
		p.Info = make([]byte, most)
		require.ErrorContains(t, a.Publish(t.Context(), p), "MaxPacketBytes")
		require.Zero(t, a.Status().Dropped)
	}
	require.Zero(t, newMesh(t, "small", withMost(1<<10)).MaxBody())
}

func withMost(bytes int) func(*zmqmesh.Options) {
	return func(o *zmqmesh.Options) { o.MaxPacketBytes = bytes }
}

// TestHubWithinTheMesh: a hub that would accept larger messages than its mesh is
// refused. The error has both numbers and says what to do.
func TestHubWithinTheMesh(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "a")
	hub := channels.Options{Mesh: m, Store: hubtest.NewMemory(t), MaxMessageBytes: 17 << 20, QueueBytes: 64 << 20}
	_, err := channels.New(hub)
	require.ErrorContains(t, err, "Options.MaxMessageBytes is 17825792")
	require.ErrorContains(t, err, "up to 16772032")
	require.ErrorContains(t, err, "raise the mesh's own limit")
	hub.MaxMessageBytes = m.MaxBody()
	hubtest.NewHub(t, hub)
}

// TestLongChannel: a channel whose name is too long to subscribe to is neither
// published on nor delivered.
func TestLongChannel(t *testing.T) {
	t.Parallel()
	a := newMesh(t, "a")
	long := strings.Repeat("x", zmqmesh.MaxTopic+1)
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{To: "b", Channel: long}), "it must be 1 to 512")
	in := receive(t, a)
	require.Error(t, zmqmesh.Packets(a, packet.Append(nil, &mesh.Packet{Seq: 1, To: "a", Channel: long})))
	require.NoError(t, zmqmesh.Packets(a, packet.Append(nil, &mesh.Packet{Seq: 2, To: "a", Channel: long[1:]})))
	require.Equal(t, 1, in.count(func(p mesh.Packet) bool { return p.Kind == mesh.KindMessage }))
}

// TestAcceptFails: if nobody can connect, the mesh says so as long as that lasts,
// and publishing to nobody fails.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	failing := &failingListener{Listener: listen(t)}
	m, err := zmqmesh.NewOn(options(t, "m"), failing)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{}))
	failing.fails.Store(true)
	dial(t, m)
	eventually(t, "it is in the status", func() bool { return m.Status().Err != nil })
	require.ErrorContains(t, m.Status().Err, "too many open files")
	require.ErrorContains(t, m.Publish(t.Context(), mesh.Packet{}), "too many open files")
	failing.fails.Store(false)
	dial(t, m)
	eventually(t, "it is over", func() bool { return m.Status().Err == nil })
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{}))
}

// failingListener fails as if the process had too many files open.
type failingListener struct {
	net.Listener
	fails atomic.Bool
}

func (l *failingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.fails.Load() {
		c.Close()
		return nil, errors.New("too many open files")
	}
	return c, err
}

// TestPublishErrors: a packet that cannot be sent is refused with its size.
func TestPublishErrors(t *testing.T) {
	t.Parallel()
	a := newMesh(t, "a", withMost(1<<10))
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 1024)}), "at most 1024 are allowed")
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{Kind: mesh.KindLost}), "cannot be published")
	require.ErrorContains(t, a.Subscribe(""), "it must be 1 to 512")
	require.ErrorContains(t, a.Unsubscribe(string(make([]byte, 513))), "it must be 1 to 512")
	require.NoError(t, a.Subscribe(string(bytes.Repeat([]byte("x"), 512))))
}

// TestSmallerPeer: a replica that accepts only smaller packets loses the larger
// ones and is told so. The link stays.
func TestSmallerPeer(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a"), newMesh(t, "b", withMost(1<<10))
	in := link(t, b, "a", a.Address())
	for i := range 3 {
		in.clear()
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 2048<<(4*i))}))
		in.await(t, lostOf("a"))
	}
	require.NoError(t, a.Publish(t.Context(), mesh.Packet{Header: "small"}))
	in.await(t, message("small"))
	require.Equal(t, int64(3), a.Status().Dropped)
	require.Zero(t, in.count(func(p mesh.Packet) bool { return p.Body != nil }))
}
