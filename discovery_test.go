package channels_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// discoverer is a mesh that records the addresses of peers that the hub gives it.
type discoverer struct {
	mesh.Mesh
	address string
	peers   atomic.Pointer[map[string]string]
	calls   atomic.Int64
}

func (d *discoverer) Address() string { return d.address }

func (d *discoverer) SetPeers(addresses map[string]string) {
	addresses = maps.Clone(addresses)
	d.peers.Store(&addresses)
	d.calls.Add(1)
}

// told is what it was told last.
func (d *discoverer) told() map[string]string { return *d.peers.Load() }

// discovering gives each replica a discoverer.
func discovering(ds *[]*discoverer) func(int, *channels.Options) {
	return func(_ int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		d.peers.Store(new(map[string]string)) // it is told none so far
		*ds = append(*ds, d)
		o.Mesh = d
	}
}

func TestPeersAreFoundThroughTheStore(t *testing.T) {
	var ds []*discoverer
	inBubble(t, 4, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.Equal(t, map[string]string{"r1": "tcp://r1", "r2": "tcp://r2"}, ds[0].told(), "r3 has no address, and r0 is itself")
		calls := ds[0].calls.Load()
		time.Sleep(20 * time.Second)
		require.EqualValues(t, 10, ds[0].calls.Load()-calls, "every 2 s")

		r.store.down.Store(true)
		calls = ds[0].calls.Load()
		time.Sleep(30 * time.Second)
		require.Equal(t, calls, ds[0].calls.Load(), "while the Store is down, peers are kept")
		require.Len(t, ds[0].told(), 2)
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		require.Len(t, ds[0].told(), 2)

		r.store.mute.Store("r2") // as if killed
		time.Sleep(13 * time.Second)
		require.Equal(t, map[string]string{"r1": "tcp://r1"}, ds[0].told())
	}, discovering(&ds), func(i int, _ *channels.Options) {
		if i == 3 {
			ds[i].address = ""
		}
	})
}

// logInto has each replica log warnings and errors into log.
func logInto(log *logBuffer) func(int, *channels.Options) {
	return func(_ int, o *channels.Options) {
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
}

// If the mesh fails, the hub logs that once, not for each message.
func TestAMeshThatRefusesIsLoggedOnce(t *testing.T) {
	log := &logBuffer{}
	inBubble(t, 1, history, func(r *replicas) {
		r.meshes[0].refuses.Store(true)
		r.publishAll(0, "c", 1, 100)
		require.Equal(t, 1, strings.Count(log.String(), "mesh: a message was not sent"), log.String())
		time.Sleep(5 * time.Second)
		r.publish(0, "c", 100)
		require.Equal(t, 2, strings.Count(log.String(), "mesh: a message was not sent"))
	}, logInto(log))
}

func TestTwoReplicasWithOneNameAreNoticed(t *testing.T) {
	log := &logBuffer{}
	inBubble(t, 1, nil, func(r *replicas) {
		// Twins notice each other as each reports between two looks of the other. If both
		// tick in the same nanosecond, as only in a bubble, that is left to chance.
		time.Sleep(5300 * time.Millisecond)
		twin := newHub(r.t, channels.Options{ReplicaID: "r0", Store: r.store, Mesh: meshtest.NewNetwork(1).Join("r0")})
		time.Sleep(30 * time.Second)
		require.Equal(t, 1, strings.Count(log.String(), "the same Options.ReplicaID"), log.String())
		r.hubs = append(r.hubs, twin)
		for i := range 2 {
			require.Equal(t, "yellow: same name", r.status(i, "r0"))
			require.Equal(t, "ok", r.ready(i))
		}
		require.NoError(t, twin.Shutdown(context.Background()))
		r.hubs = r.hubs[:1]
		r.after(15*time.Second, 0, "green", "r0")
	}, logInto(log))

	log = &logBuffer{}
	inBubble(t, 1, nil, func(r *replicas) { // one after the other is no twin
		time.Sleep(5 * time.Second)
		r.store.mute.Store("r0") // killed
		time.Sleep(time.Second)
		o := channels.Options{ReplicaID: "r0", Mesh: meshtest.NewNetwork(1).Join("r0"), Store: r.store.Store}
		logInto(log)(0, &o)
		next := newHub(r.t, o)
		time.Sleep(10 * time.Second)
		require.NotContains(t, log.String(), "the same Options.ReplicaID")
		r.hubs = append(r.hubs, next)
		require.Equal(t, "green", r.status(1, "r0"))
		r.hubs = r.hubs[:1]
		require.NoError(t, next.Shutdown(context.Background()))
	})
}

// A second replica of the same id is noticed through the mesh alone: its Status says
// so, or it brings a packet from the twin.
func TestTwinsThatOnlyTheMeshSees(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		err := fmt.Errorf("met at tcp://r0: %w", mesh.ErrTwin)
		r.meshes[0].err.Store(&err)
		r.after(20*time.Second, 0, "yellow: same name", "r0")
		require.Equal(t, "yellow: same name", r.status(1, "r0"))
		require.Equal(t, "green", r.status(1, "r1"))
		r.meshes[0].err.Store(new(error))
		r.after(15*time.Second, 0, "green", "r0")

		r.meshes[1].bring(mesh.Packet{Kind: mesh.KindControl, Origin: "r1", Header: "canary", Body: []byte(`{"v":1,"n":1,"node":{"status":"green"}}`)})
		require.Equal(t, "yellow: same name", r.status(1, "r1"))
		nodes, err := r.hubs[1].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, nodes, 2)
	})
}

// A replica that is heard through the mesh but is not in the Store uses another Store.
// The hub warns of it before a message goes wrong.
func TestAnotherStore(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		other := r.join("other", func(o *channels.Options) { o.Store = newFaultyStore(newMemory(r.t)) })
		time.Sleep(7 * time.Second)
		for i := range 2 {
			require.Equal(t, "yellow: another store", r.status(i, "other"))
			require.Equal(t, "green", r.status(i, "r0"))
			require.Equal(t, "yellow: another store", r.status(2, "r"+strconv.Itoa(i)))
		}
		require.Equal(t, "green", r.status(2, "other"), "nobody can say who is right")
		r.store.down.Store(true) // and now it cannot be asked
		time.Sleep(5 * time.Second)
		require.NotContains(t, r.status(0, "other"), "another store")
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		require.NoError(t, other.Shutdown(context.Background()))
		r.hubs = r.hubs[:2]
		synctest.Wait()
		require.Empty(t, r.status(0, "other"), "it has said goodbye")
	})
}

// If the Store and the mesh hang together, as over one Redis, no replica hears of
// another. A replica that lived until then is red because of the Store, not because
// of missed heartbeats; one that died before is red because of those.
func TestReplicasThatNobodyCanHear(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.meshes[2].mute.Store(true) // r2 is killed
		r.store.mute.Store("r2")
		r.after(12*time.Second, 0, "red: heartbeats missed", "r2")

		r.store.down.Store(true)
		err := errors.New("Redis is away")
		for _, m := range r.meshes {
			m.mute.Store(true)
			m.err.Store(&err)
		}
		r.after(8500*time.Millisecond, 0, "yellow: report late: store", "r1")
		for range 100 {
			time.Sleep(time.Second)
			if r.status(0, "r1") != "yellow: report late: store" {
				require.Equal(t, "red: reports lost: store", r.status(0, "r1"), "also when it would have been forgotten")
				require.Contains(t, r.status(0, "r0"), "lost: store")
				require.NotContains(t, r.status(0, "r0"), "heartbeat")
			}
			require.Contains(t, []string{"red: heartbeats missed", ""}, r.status(0, "r2"))
		}
		require.Empty(t, r.status(0, "r2"))

		r.store.down.Store(false)
		for _, m := range r.meshes {
			m.mute.Store(false)
			m.err.Store(new(error))
		}
		r.after(15*time.Second, 0, "green", "r1")
	})
}

// If each replica has a Store of its own, channels without history work across all
// replicas, and the hub warns of channels with history.
func TestReplicasWithoutASharedStore(t *testing.T) {
	log := &logBuffer{}
	var stores []*store.Memory
	inBubble(t, 3, keeps, func(r *replicas) {
		a, b := r.subscribe(1, "c", nil), r.subscribe(2, "c", nil)
		time.Sleep(20 * time.Second)
		for i := range 3 {
			for _, id := range []string{"r0", "r1", "r2"} {
				require.Equal(t, "green", r.status(i, id))
			}
		}
		nodes, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Equal(t, 1, nodes[2].Connections)
		for n := range 10 {
			r.publish(n%3, "c", n)
		}
		synctest.Wait()
		require.Len(t, a.close(), 10)
		require.Len(t, b.close(), 10)
		require.Empty(t, log.String(), "so far all is well")

		s := r.subscribe(1, "h", nil)
		r.publish(1, "h", 1)
		for range 3 {
			r.publish(0, "h", 1)
		}
		synctest.Wait()
		s.close()
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "different Stores")
		require.Equal(t, "yellow: another store", r.status(1, "r0"), "the two histories are no one's")
		require.Equal(t, "green", r.status(2, "r0"), "it has had none of them")
		r.after(store.ForgottenAfter+time.Second, 1, "green", "r0")

		require.NoError(t, r.hubs[2].Shutdown(context.Background()))
		synctest.Wait()
		require.Empty(t, r.status(0, "r2"), "it has said goodbye")
		r.net.Cut("r0", "r1")
		r.after(12*time.Second, 0, "red: heartbeats missed", "r1")
		time.Sleep(50 * time.Second)
		require.Empty(t, r.status(0, "r1"))
		for _, m := range stores {
			m.Close()
		}
	}, logInto(log), func(_ int, o *channels.Options) {
		m, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		stores = append(stores, m)
		o.Store = m
	})
}

// If a shared Store loses its logs, the hub does not warn that there are several Stores.
func TestAStoreThatLosesItsLogsIsStillOne(t *testing.T) {
	log := &logBuffer{}
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		for range 5 {
			r.lose()
			for range 10 {
				time.Sleep(time.Second)
				r.publish(0, "c", 1)
			}
		}
		s.close()
		require.NotContains(t, log.String(), "different Stores")
	}, logInto(log), func(i int, _ *channels.Options) {
		time.Sleep(time.Duration(i) * 1500 * time.Millisecond) // so that they do not notice it at the same moment
	})
}
