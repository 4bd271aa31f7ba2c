package redismesh_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A replica is named once, at its mesh, also by chance; the hub refuses another
// name.
func TestHubTakesTheReplicaID(t *testing.T) {
	c := redistest.NewClient(t, "127.0.0.1:1") // no server is needed for this
	hubtest.TakesReplicaID(t, func(id string) hubtest.Identified { return open(t, c, "", id) })
}

// Over Redis, for the messages and for the history.
func TestHubsSayWhoPublished(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	hubtest.SayWhoPublished(t, func(id string) channels.Options {
		st, err := redisstore.New(s.Client(), redisstore.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, st.Close()) })
		return channels.Options{ReplicaID: id, Mesh: open(t, s.Client(), "", id), Store: st}
	})
}

// A user's connections are subscribed on all hubs.
func TestHubsSubscribeUsers(t *testing.T) {
	t.Parallel()
	s, st := redistest.Start(t), hubtest.NewMemory(t)
	hubtest.SubscribesUsers(t, func(id string) channels.Options {
		return channels.Options{ReplicaID: id, Mesh: open(t, s.Client(), "", id), Store: st}
	})
}

// What is sent to a user comes at the other hub, and each knows who is at the other.
func TestHubsReachUsers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	hubtest.ReachesUsers(t, func(id string) channels.Options {
		st, err := redisstore.New(s.Client(), redisstore.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, st.Close()) })
		return channels.Options{ReplicaID: id, Mesh: open(t, s.Client(), "", id), Store: st}
	})
}

// The commands of a session come through Redis to the hub that has its stream.
func TestHubsPassCommandsOn(t *testing.T) {
	t.Parallel()
	s, st := redistest.Start(t), hubtest.NewMemory(t)
	hubtest.PassesCommandsOn(t, func(id string) channels.Options {
		return channels.Options{ReplicaID: id, Mesh: open(t, s.Client(), "", id), Store: st}
	})
}

// Patterns reach other replicas on one server, also with no more than the rights that
// the documentation lists, and on a Cluster with sharded pub/sub.
func TestPatterns(t *testing.T) {
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		s := redistest.Start(t)
		s.Do("ACL", "SETUSER", "right", "on", ">x", "+publish", "+subscribe", "+unsubscribe", "+hello", "+client", "&p:mesh:*")
		hubtest.Patterns(t, func(id string) mesh.Mesh {
			return open(t, s.Client(func(o *redis.Options) { o.Username, o.Password = "right", "x" }), "p", id)
		})
	})
	t.Run("Cluster", func(t *testing.T) {
		c := redistest.StartCluster(t, 3, false)
		hubtest.Patterns(t, func(id string) mesh.Mesh { return open(t, c.Client(), "p", id) })
	})
}
