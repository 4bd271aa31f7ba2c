package zmqmesh_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestHubTakesTheReplicaID: a replica is named once, at its mesh, even if the
// name is random. The hub refuses another name.
func TestHubTakesTheReplicaID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"replica-1", ""} {
		m := newMesh(t, id)
		if id == "" {
			require.Regexp(t, "^[a-z0-9]{13}$", m.ReplicaID())
		} else {
			require.Equal(t, id, m.ReplicaID())
		}
		hub := hubtest.NewHub(t, channels.Options{Mesh: m, Store: hubtest.NewMemory(t)})
		nodes, err := hub.Replicas(t.Context())
		require.NoError(t, err)
		require.Len(t, nodes, 1)
		require.Equal(t, m.ReplicaID(), nodes[0].ID)
	}
	m := newMesh(t, "replica-1")
	_, err := channels.New(channels.Options{ReplicaID: "replica-2", Mesh: m, Store: hubtest.NewMemory(t)})
	require.ErrorContains(t, err, `is "replica-2", but Options.Mesh has the id "replica-1"`)
	hubtest.NewHub(t, channels.Options{ReplicaID: "replica-1", Mesh: m, Store: hubtest.NewMemory(t)})
}

// TestTwinHubs: two replicas with one name and no common Store are not green.
// Only the mesh can see them.
func TestTwinHubs(t *testing.T) {
	t.Parallel()
	one := newMesh(t, "a", withKey("the key of the mesh"))
	two := newMesh(t, "a", withKey("the key of the mesh"), func(o *zmqmesh.Options) { o.Peers = []string{one.Address()} })
	for _, m := range []*zmqmesh.Mesh{one, two} {
		hub := hubtest.NewHub(t, channels.Options{Mesh: m, Store: hubtest.NewMemory(t)})
		eventually(t, "it is yellow", func() bool {
			nodes, err := hub.Replicas(t.Context())
			return err == nil && len(nodes) == 1 && nodes[0].Status == channels.ReplicaYellow && slices.Contains(nodes[0].Reasons, "same name")
		})
	}
}
