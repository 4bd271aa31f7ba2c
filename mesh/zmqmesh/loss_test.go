package zmqmesh_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
)

// TestLinkThatEndsForGood: if a link ends and never comes back, a KindLost comes
// soon, and another one when the replica is given up. In between, attempts to
// connect tell nothing.
func TestLinkThatEndsForGood(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a"), newMesh(t, "b")
	hole := basetest.NewRelay(t, tcp(b))
	in := link(t, a, "b", "tcp://"+hole.Addr)
	awaitUp(t, a, "b")
	in.clear()
	hole.Freeze()
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "lost"}))
	require.NoError(t, b.Close())
	in.await(t, lostOf("b"))
	errs := map[string]bool{}
	eventually(t, "it is tried again", func() bool {
		errs[a.Status().Peers[0].Err] = true // each attempt comes from another port
		return len(errs) > 3
	})
	require.Equal(t, 1, in.count(lostOf("b")))
	a.SetPeers(nil)
	eventually(t, "it is told again", func() bool { return in.count(lostOf("b")) == 2 })
	require.Empty(t, a.Status().Peers)
	require.Zero(t, in.count(message("lost")))
}

// TestGoodbyeLosesNothing: a replica that leaves sends everything first, so there
// is no KindLost; nor is there one when this replica itself ends.
func TestGoodbyeLosesNothing(t *testing.T) {
	t.Parallel()
	a, b, c := newMesh(t, "a"), newMesh(t, "b"), newMesh(t, "c")
	in := receive(t, a)
	a.SetPeers(map[string]string{"b": b.Address(), "c": c.Address()})
	in.await(t, lostOf("b"))
	in.await(t, lostOf("c"))
	in.clear()
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "last"}))
	require.NoError(t, b.Close())
	in.await(t, message("last"))
	eventually(t, "it is tried again", func() bool {
		p := a.Status().Peers
		return !p[0].Up && p[0].Err != "" && p[0].Err != "zmqmesh: the replica has left"
	})
	a.SetPeers(nil)
	eventually(t, "it is forgotten", func() bool { return upTo(a, "c") })
	require.NoError(t, a.Close())
	require.Zero(t, in.count(func(p mesh.Packet) bool { return p.Kind == mesh.KindLost }))
}

// TestGapIsInherited: if a link that was up is replaced by one that never comes
// up, a KindLost tells that too.
func TestGapIsInherited(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := newMesh(t, "m")
	in := receive(t, m)
	m.SetPeers(map[string]string{"stage": s.address()})
	first := s.accept()
	in.await(t, lostOf("stage"))
	in.clear()
	other := newStage(t)
	other.life = s.life + 1
	m.SetPeers(map[string]string{"stage": other.address()})
	c, _ := other.shake() // but it does not answer anything
	requireHungUp(t, first)
	require.Zero(t, in.count(lostOf("stage")))
	require.NoError(t, c.Close())
	in.await(t, lostOf("stage"))
}
