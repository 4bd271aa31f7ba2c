package hubtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
)

// Identified is a mesh that knows its replica's id.
type Identified interface {
	mesh.Mesh
	ReplicaID() string
}

// TakesReplicaID checks that a hub has its id from the mesh that open opens, even if
// that id is random, and refuses another one.
func TakesReplicaID(t *testing.T, open func(id string) Identified) {
	t.Helper()
	for id, want := range map[string]string{"replica-1": "^replica-1$", "": "^[a-z0-9]{13}$"} {
		m := open(id)
		require.Regexp(t, want, m.ReplicaID())
		nodes, err := NewHub(t, channels.Options{Mesh: m, Store: NewMemory(t)}).Replicas(t.Context())
		require.NoError(t, err)
		require.Len(t, nodes, 1)
		require.Equal(t, m.ReplicaID(), nodes[0].ID)
	}
	m := open("replica-1")
	_, err := channels.New(channels.Options{ReplicaID: "replica-2", Mesh: m, Store: NewMemory(t)})
	require.ErrorContains(t, err, `is "replica-2", but Options.Mesh has the id "replica-1"`)
	NewHub(t, channels.Options{ReplicaID: "replica-1", Mesh: m, Store: NewMemory(t)})
}
