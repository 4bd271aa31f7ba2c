package redismesh_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// A replica is named once, at its mesh, also by chance; the hub refuses another
// name.
func TestHubTakesTheReplicaID(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // no server is needed for this
	defer c.Close()
	for _, id := range []string{"replica-1", ""} {
		m := open(t, c, "", id)
		if id == "" {
			require.Regexp(t, "^[a-z0-9]{13}$", m.ReplicaID())
		} else {
			require.Equal(t, id, m.ReplicaID())
		}
		nodes, err := hubtest.NewHub(t, channels.Options{Mesh: m, Store: hubtest.NewMemory(t)}).Replicas(t.Context())
		require.NoError(t, err)
		require.Len(t, nodes, 1)
		require.Equal(t, m.ReplicaID(), nodes[0].ID)
	}
	_, err := channels.New(channels.Options{ReplicaID: "replica-2", Mesh: open(t, c, "", "replica-1"), Store: hubtest.NewMemory(t)})
	require.ErrorContains(t, err, `is "replica-2", but Options.Mesh has the id "replica-1"`)
}
