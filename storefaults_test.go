package channels_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// While the store hangs, clients are still pinged, and none that answers is cut.
func TestPingsGoOnWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	gone := make(departures, 1)
	s := serve(t, channels.Options{Store: hanging(newMemory(t), &hangs, "Report"), StoreTimeout: time.Minute, PingPeriod: time.Second,
		OnDisconnect: gone.hook})
	t.Cleanup(func() { hangs.Store(false) })
	r := s.upgrade("/channel/c/")
	hangs.Store(true)
	for range 4 {
		require.Equal(t, byte(rawPing), r.read().First)
		r.Send(wsFrame(rawPong, ""))
	}
	require.Empty(t, gone)
}

func TestACallDoesNotOutliveItsContextWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		hub := newHub(t, channels.Options{Store: hanging(newMemory(t), &hangs, "Report")})
		hangs.Store(true)
		defer hangs.Store(false)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				limit := time.Duration(i+1) * 100 * time.Millisecond
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				begin := time.Now()
				_, err := hub.Publish(ctx, "c", msg("x", "1")) // a change to report
				assert.NoError(t, err)
				_, err = hub.Channels(ctx, channels.ChannelsQuery{})
				if reasonCode(err) != "store_unavailable" || time.Since(begin) > limit {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
			})
		}
		wg.Wait()
	})
}

// If one part of the Store hangs, heartbeats go on through the other part.
func TestAPartOfTheStoreThatHangsDoesNotMakeReplicasSeemDead(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.hangs.Store(true)
		during(60*time.Second, func() {
			nodes, err := r.store.Store.Replicas(context.Background())
			require.NoError(t, err)
			for _, n := range nodes {
				require.Less(t, time.Since(n.Seen), 6*time.Second, "yellow after 7 s")
			}
		})
		require.Equal(t, "red: canary lost: store", r.status(0, "r0"))
		r.store.hangs.Store(false)
	})
}

// While the Store takes no reports, it cannot tell whether a replica lives. A replica
// that is silent is red, and the mesh keeps its peers.
func TestADeadReplicaIsRedWhileTheStoreTakesNoReports(t *testing.T) {
	var full atomic.Bool // the Store can be read but refuses all writes
	var ds []*discoverer
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		full.Store(true)
		r.meshes[2].mute.Store(true) // r2 is killed
		time.Sleep(11 * time.Second)
		for range 80 {
			time.Sleep(500 * time.Millisecond)
			for i := range 2 {
				require.Equal(t, "red: heartbeats missed", r.status(i, "r2"))
				require.Equal(t, "red: reports lost: store, canary lost: store", r.status(i, "r"+strconv.Itoa(1-i)), "as it says itself, over the mesh")
			}
		}
		time.Sleep(20 * time.Second)
		require.Empty(t, r.status(0, "r2"), "it is forgotten")
		require.Equal(t, "ok", r.ready(0))
		require.Equal(t, map[string]string{"r1": "tcp://r1", "r2": "tcp://r2"}, ds[0].told(), "who cannot report may live")

		full.Store(false)
		r.store.mute.Store("r2")
		r.after(8*time.Second, 0, "green", "r1")
		require.Equal(t, map[string]string{"r1": "tcp://r1"}, ds[0].told(), "who lives has reported by now")
	}, func(_ int, o *channels.Options) {
		o.Store = &guardedStore{o.Store, func(_ context.Context, method string) error {
			if full.Load() && slices.Contains([]string{"Append", "Report", "UpdatePresence"}, method) {
				return fmt.Errorf("test: full: %w", store.ErrUnavailable)
			}
			return nil
		}}
	}, discovering(&ds))
}

// A Store that comes back knows of no recent report. The mesh keeps its peers all the
// same.
func TestPeersAreKeptWhenTheStoreComesBack(t *testing.T) {
	var ds []*discoverer
	inBubble(t, 4, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		time.Sleep(30 * time.Second)
		r.store.mute.Store("r3") // which needs a moment longer than the others
		r.store.down.Store(false)
		during(2500*time.Millisecond, func() {
			require.Len(t, ds[0].told(), 3)
		})
		r.store.mute.Store("")
		time.Sleep(10 * time.Second)
		require.Len(t, ds[0].told(), 3)
	}, discovering(&ds))
}

func TestNodesWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond) // its heartbeats and canaries come at whole seconds
		r.store.down.Store(true)
		r.after(8*time.Second, 0, "yellow: report late: store, canary late: store", "r0")
		r.after(30*time.Second, 0, "red: reports lost: store, canary lost: store", "r0")
		require.Equal(t, "red: reports lost: store, canary lost: store", r.status(0, "r1"), "as it says itself, over the mesh")
		r.store.down.Store(false)
		r.after(5*time.Second, 0, "green", "r0", "r1")
		require.Equal(t, "ok", r.ready(0))
	})
}

// panicking is a mesh that panics in the method that armed names.
type panicking struct {
	mesh.Mesh
	armed *atomic.Value
}

func (p panicking) Subscribe(channel string) error {
	panicIf(p.armed, "Subscribe")
	return p.Mesh.Subscribe(channel)
}

func (p panicking) Publish(ctx context.Context, packet mesh.Packet) error {
	panicIf(p.armed, "Publish")
	return p.Mesh.Publish(ctx, packet)
}

func panicIf(armed *atomic.Value, method string) {
	if armed.Load() == method {
		panic(method)
	}
}

// If the app's Store or Mesh panics while a client connects, the process lives,
// and nothing of the client is left.
func TestAStoreOrMeshThatPanics(t *testing.T) {
	var armed atomic.Value // the name of a method
	st := &guardedStore{newMemory(t), func(_ context.Context, method string) error { panicIf(&armed, method); return nil }}
	node := meshtest.NewNetwork(1).Join("n")
	t.Cleanup(func() { node.Close() })
	s := serve(t, channels.Options{Store: st, Mesh: panicking{node, &armed}, ReplicaID: "n", MaxConnections: 1, Channel: func(name string) channels.ChannelOptions {
		if name == "plain" {
			return channels.ChannelOptions{Presence: channels.PresenceEvents}
		}
		return channels.ChannelOptions{Presence: channels.PresenceEvents, HistorySize: 10}
	}})
	for _, method := range []string{"Tops", "Subscribe"} {
		armed.Store(method)
		for range 3 {
			require.GreaterOrEqual(t, s.handshake("/channel/c/").status, 500)
			require.NotEmpty(t, s.getStream("/channel/c/").code())
			if method == "Subscribe" {
				require.GreaterOrEqual(t, s.handshake("/channel/plain/").status, 500)
			}
		}
		armed.Store("")
	}
	armed.Store("Publish") // of the event that somebody has come
	w := s.join("plain", "")
	armed.Store("")
	w.c.CloseNow()
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	s.untilLetIn("c")
}
