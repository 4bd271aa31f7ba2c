package zmqmesh_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestSameID: two replicas with one id do not link, and both report it, whichever
// of them dials. The log has the id, once.
func TestSameID(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "the key of the mesh"} {
		var log logbook
		a, other := newMesh(t, "a", withKey(key), withLog(&log)), newMesh(t, "a", withKey(key), withLog(&log))
		a.SetPeers(map[string]string{"x": other.Address()})
		for _, m := range []*zmqmesh.Mesh{a, other} {
			eventually(t, "it knows", func() bool { return errors.Is(m.Status().Err, mesh.ErrTwin) })
		}
		eventually(t, "they meet again and again", func() bool { return other.Status().Refused > 3 })
		require.Equal(t, 2, log.Count("level=ERROR"), "one of each")
		require.Contains(t, log.Line("level=ERROR"), "id=a")
		require.False(t, log.Has("refused a connection"))
		require.False(t, upTo(a, "a"))
	}
}

// TestSameIDWithoutProof: a stranger who claims this replica's id, without the
// key, makes nothing look wrong, whether it dials or is dialled.
func TestSameIDWithoutProof(t *testing.T) {
	t.Parallel()
	a := newMesh(t, "a", withKey("the key of the mesh"))
	_, err := zmqmesh.Shake(dial(t, a), "a", 7, []byte("another key of no mesh"), false)
	require.Error(t, err)
	eventually(t, "it is refused", func() bool { return a.Status().Refused == 1 })
	stranger := newStage(t)
	a.SetPeers(map[string]string{"x": stranger.address()})
	for range 2 {
		_, err = zmqmesh.Shake(accept(t, stranger.ln), "a", 7, []byte("another key of no mesh"), true)
		require.Error(t, err)
	}
	require.NoError(t, a.Status().Err)
}

// TestTwins: two living replicas with one id are logged, once, with both
// addresses: by the replicas that they connect to, and by those that connect to
// them.
func TestTwins(t *testing.T) {
	t.Parallel()
	const twins = "two replicas have the same id"
	one, other := newMesh(t, "twin"), newMesh(t, "twin")
	var dials, listens logbook
	dialler, listener := newMesh(t, "dialler", withLog(&dials)), newMesh(t, "listener", withLog(&listens))
	dialler.SetPeers(map[string]string{"x": one.Address(), "y": other.Address()})
	one.SetPeers(map[string]string{"listener": listener.Address()})
	other.SetPeers(map[string]string{"listener": listener.Address()})
	for _, log := range []*logbook{&dials, &listens} {
		eventually(t, "it is logged", func() bool { return log.Has(twins) })
	}
	line := dials.Line(twins)
	require.Contains(t, line, one.Address())
	require.Contains(t, line, other.Address())
	for _, line := range []string{line, listens.Line(twins)} {
		require.Contains(t, line, "level=ERROR")
		require.Regexp(t, `peer=twin address=\S+ other=\S+`, line)
	}
	before := listens.Count("has connected again")
	eventually(t, "they go on", func() bool { return listens.Count("has connected again") >= before+4 })
	require.Equal(t, 1, dials.Count(twins))
	require.Equal(t, 1, listens.Count(twins))
}

// TestAnotherLife: a replica that comes back under the same id is linked at once,
// even while the link to its earlier life is a black hole.
func TestAnotherLife(t *testing.T) {
	t.Parallel()
	var log logbook
	a := newMesh(t, "a", withLog(&log))
	hole := basetest.NewRelay(t, tcp(newMesh(t, "b")))
	in := link(t, a, "b", "tcp://"+hole.Addr)
	hole.Freeze()
	in.clear()
	second := newMesh(t, "b")
	a.SetPeers(map[string]string{"b": second.Address()})
	in.await(t, lostOf("b"))
	require.Equal(t, second.Address(), a.Status().Peers[0].Address)
	require.NoError(t, second.Publish(t.Context(), mesh.Packet{Header: "second"}))
	in.await(t, message("second"))
	require.False(t, log.Has("the same id"))
}

// TestConnectsAgain: a replica has one connection here, the latest. The count of
// its dropped packets goes on.
func TestConnectsAgain(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m")
	first, _ := join(t, m, "x")
	awaitPeers(t, m, 1)
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Body: make([]byte, 2<<20)})) // too large for it
	// Without its heartbeats, the first would end because it is silent.
	beats(t, first)
	join(t, m, "x")
	requireHungUp(t, first)
	require.Len(t, m.Status().Peers, 1)
	eventually(t, "the number goes on", func() bool { return m.Status().Peers[0].Dropped == 1 })
	require.Equal(t, int64(1), m.Status().Dropped)
}
