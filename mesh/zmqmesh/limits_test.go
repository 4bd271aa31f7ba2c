package zmqmesh_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

// TestMaxBody: a body of MaxBody is taken and arrives, whatever else is in the
// packet.
func TestMaxBody(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1 << 13, 1 << 16, 1<<20 + 1} {
		o, ob := options(t, "a"), options(t, "b")
		o.MaxPacketBytes, ob.MaxPacketBytes = most, most
		a, b := open(t, o), open(t, ob)
		var l mesh.Limiter = a
		in := receive(t, b)
		b.SetPeers(map[string]string{"a": a.Address()})
		in.await(t, lostOf("a"))
		p := mesh.Packet{To: "b", Channel: strings.Repeat("c", 512), Epoch: strings.Repeat("e", 64), Offset: 1<<64 - 1, Sender: "s",
			Body: make([]byte, l.MaxBody())}
		p.Header = strings.Repeat("h", mesh.MaxFieldBytes-len(p.To)-len(p.Channel)-len(p.Epoch)-len(p.Sender))
		require.NoError(t, a.Publish(t.Context(), p))
		in.await(t, func(got mesh.Packet) bool { return got.Header == p.Header && len(got.Body) == l.MaxBody() })
		require.Zero(t, a.Status().Dropped)
	}
	o := options(t, "small")
	o.MaxPacketBytes = 1 << 10
	require.Zero(t, open(t, o).MaxBody())
}

// TestHubWithinTheMesh: a hub that would take larger messages than its mesh is
// refused, with both numbers and what to do.
func TestHubWithinTheMesh(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "a"))
	st, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	hub := channels.Options{ReplicaID: "a", Mesh: m, Store: st, MaxMessageBytes: 17 << 20, QueueBytes: 64 << 20}
	_, err = channels.New(hub)
	require.ErrorContains(t, err, "Options.MaxMessageBytes is 17825792")
	require.ErrorContains(t, err, "up to 16773056")
	require.ErrorContains(t, err, "raise the mesh's own limit")
	hub.MaxMessageBytes = m.MaxBody()
	h, err := channels.New(hub)
	require.NoError(t, err)
	require.NoError(t, h.Shutdown(t.Context()))
}

// TestLongChannel: a channel's name that nobody can subscribe to is neither
// published on nor delivered.
func TestLongChannel(t *testing.T) {
	t.Parallel()
	a := open(t, options(t, "a"))
	long := strings.Repeat("x", zmqmesh.MaxTopic+1)
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{To: "b", Channel: long}), "must be 1 to 512")
	in := receive(t, a)
	require.Error(t, zmqmesh.Packets(a, packet.Append(nil, &mesh.Packet{Seq: 1, To: "a", Channel: long})))
	require.NoError(t, zmqmesh.Packets(a, packet.Append(nil, &mesh.Packet{Seq: 2, To: "a", Channel: long[1:]})))
	require.Equal(t, 1, in.count(func(p mesh.Packet) bool { return p.Kind == mesh.KindMessage }))
}
