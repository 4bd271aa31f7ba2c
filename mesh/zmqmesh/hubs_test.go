package zmqmesh_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestHubTakesTheReplicaID: a replica is named once, at its mesh, even if the
// name is random. The hub refuses another name.
func TestHubTakesTheReplicaID(t *testing.T) {
	t.Parallel()
	hubtest.TakesReplicaID(t, func(id string) hubtest.Identified { return newMesh(t, id) })
}

// TestHubsSayWhoPublished: the other hub knows who published, on channels without a
// history too.
func TestHubsSayWhoPublished(t *testing.T) {
	t.Parallel()
	st := hubtest.NewMemory(t)
	hubtest.SayWhoPublished(t, func(id string) channels.Options {
		return channels.Options{Mesh: newMesh(t, id, withKey("the key of the mesh")), Store: st}
	})
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

// TestHubsSubscribeUsers: a user's connections are subscribed on all hubs.
func TestHubsSubscribeUsers(t *testing.T) {
	t.Parallel()
	st := hubtest.NewMemory(t)
	hubtest.SubscribesUsers(t, func(id string) channels.Options {
		return channels.Options{Mesh: newMesh(t, id, withKey("the key of the mesh")), Store: st}
	})
}

// TestHubsReachUsers: what is sent to a user comes at the other hub, and each knows who
// is at the other.
func TestHubsReachUsers(t *testing.T) {
	t.Parallel()
	st := hubtest.NewMemory(t)
	hubtest.ReachesUsers(t, func(id string) channels.Options {
		return channels.Options{Mesh: newMesh(t, id, withKey("the key of the mesh")), Store: st}
	})
}

// TestHubsPassCommandsOn: the commands of a session come through the hub that they
// reach to the one that has the session's stream.
func TestHubsPassCommandsOn(t *testing.T) {
	t.Parallel()
	st := hubtest.NewMemory(t)
	hubtest.PassesCommandsOn(t, func(id string) channels.Options {
		return channels.Options{Mesh: newMesh(t, id, withKey("the key of the mesh")), Store: st}
	})
}

// TestPatterns: the replicas find each other through their Store.
func TestPatterns(t *testing.T) {
	t.Parallel()
	hubtest.Patterns(t, func(id string) mesh.Mesh { return newMesh(t, id) })
}

// TestPrefixesAreChecked: what could not be told from a channel is refused.
func TestPrefixesAreChecked(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "a")
	for _, prefix := range []string{"a\x00", strings.Repeat("x", zmqmesh.MaxTopic+1)} {
		require.ErrorContains(t, m.SubscribePrefix(prefix), "it must have at most 512, and no zero byte")
		require.Error(t, m.UnsubscribePrefix(prefix))
	}
	require.NoError(t, m.SubscribePrefix(strings.Repeat("x", zmqmesh.MaxTopic)))
}
