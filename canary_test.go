package channels_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

func TestTheStoresCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		r.store.full.Store(true) // it takes reports, but no message
		time.Sleep(3 * time.Second)
		require.Equal(t, "yellow: canary late: store", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		time.Sleep(7 * time.Second)
		require.Equal(t, "red: canary lost: store", r.status(0, "r0"))
		require.Equal(t, "red: canary lost: store", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0), "the other one is no better")
		r.store.full.Store(false)
		time.Sleep(4 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))

		r.store.addLag.Store(int64(1100 * time.Millisecond))
		time.Sleep(5 * time.Second)
		require.Equal(t, "yellow: canary late: store", r.status(0, "r0"))
		r.store.addLag.Store(0)
		time.Sleep(5 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
	})
}

func TestTheMeshsCanary(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(30 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "where there is no peer, none has to answer")

		silent := r.net.Join("silent") // a peer whose link is up, and nothing comes of it
		defer silent.Close()
		time.Sleep(7 * time.Second)
		require.Equal(t, "yellow: canary late: mesh", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		time.Sleep(6 * time.Second)
		require.Equal(t, "red: canary lost: mesh", r.status(0, "r0"))
		require.Equal(t, "mesh_unavailable", r.ready(0))

		node := r.net.Join("r1")
		defer node.Close()
		hub, err := channels.New(channels.Options{ReplicaID: "r1", Store: r.store, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		time.Sleep(7 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "one that answers is enough")
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))
		r.net.SetFaults(meshtest.Faults{Delay: 3 * time.Second})
		require.Eventually(t, func() bool { return r.status(0, "r0") == "yellow: canary late: mesh" }, time.Minute, 100*time.Millisecond)
		require.NoError(t, hub.Shutdown(context.Background()))
	})
}

// Replicas that share only the Store, not the mesh, answer no canary. No replica
// expects an answer from them, not even over a broker.
func TestWhoHasNoMeshAnswersNoCanary(t *testing.T) {
	for name, other := range map[string]func(mesh.Mesh) mesh.Mesh{
		"none":    func(mesh.Mesh) mesh.Mesh { return nil },
		"another": func(m mesh.Mesh) mesh.Mesh { return &sees{m, nil} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, nil, func(r *replicas) {
				r.net.Cut("r0", "r1")
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					for i := range r.hubs {
						require.Equal(t, "ok", r.ready(i))
						require.NotContains(t, r.status(i, "r0"), "canary")
					}
				}
			}, func(i int, o *channels.Options) {
				if i == 0 {
					o.Mesh = &sees{o.Mesh, []mesh.Peer{{Up: true}}} // a broker
				} else {
					o.Mesh = other(o.Mesh)
				}
			})
		})
	}
}

// An app may close its mesh long after its hub. Meanwhile, no replica waits for its
// answer to a canary.
func TestAHubThatHasLeftAnswersNoCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.NoError(t, r.hubs[1].Shutdown(context.Background()))
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			require.NotContains(t, r.status(0, "r0"), "red")
			require.Empty(t, r.status(0, "r1"))
		}
		require.Equal(t, "green", r.status(0, "r0"))
	})
}
