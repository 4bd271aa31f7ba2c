package redismesh_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// A replica is named once, at its mesh, also by chance; the hub refuses another
// name.
func TestHubTakesTheReplicaID(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // no server is needed for this
	defer c.Close()
	memory := func() store.Store {
		st, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, st.Close()) })
		return st
	}
	for _, id := range []string{"replica-1", ""} {
		m := open(t, c, "", id)
		if id == "" {
			require.Regexp(t, "^[a-z0-9]{13}$", m.ReplicaID())
		} else {
			require.Equal(t, id, m.ReplicaID())
		}
		hub, err := channels.New(channels.Options{Mesh: m, Store: memory(), Logger: quiet})
		require.NoError(t, err)
		nodes, err := hub.Replicas(t.Context())
		require.NoError(t, err)
		require.Len(t, nodes, 1)
		require.Equal(t, m.ReplicaID(), nodes[0].ID)
		require.NoError(t, hub.Shutdown(t.Context()))
	}
	_, err := channels.New(channels.Options{ReplicaID: "replica-2", Mesh: open(t, c, "", "replica-1"), Store: memory(), Logger: quiet})
	require.ErrorContains(t, err, `is "replica-2", but Options.Mesh has the id "replica-1"`)
}
