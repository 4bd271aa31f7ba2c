package channels_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
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

// hangingStore is a store whose Report can be made to hang until its context ends.
type hangingStore struct {
	store.Store
	hangs atomic.Bool
}

func (s *hangingStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if s.hangs.Load() {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return s.Store.Report(ctx, r)
}

func newHangingStore(t *testing.T) *hangingStore {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return &hangingStore{Store: m}
}

// While the store hangs, clients are still pinged, and none that answers is cut.
func TestPingsGoOnWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	st := newHangingStore(t)
	gone := make(chan error, 1)
	s := serve(t, channels.Options{Store: st, StoreTimeout: time.Minute, PingPeriod: time.Second,
		OnDisconnect: func(_ channels.Client, reason error) { gone <- reason }})
	t.Cleanup(func() { st.hangs.Store(false) })
	r := s.raw("c", "")
	st.hangs.Store(true)
	for range 4 {
		require.Equal(t, byte(rawPing), r.read().First)
		r.write(masked(rawPong, nil))
	}
	require.Empty(t, gone)
}

func TestACallDoesNotOutliveItsContextWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newHangingStore(t)
		hub, err := channels.New(channels.Options{Store: st, Logger: quiet})
		require.NoError(t, err)
		defer hub.Shutdown(context.Background())
		st.hangs.Store(true)
		defer st.hangs.Store(false)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				limit := time.Duration(i+1) * 100 * time.Millisecond
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				begin := time.Now()
				_, err := hub.Publish(ctx, "c", msg("x", "1")) // a change to report
				if err != nil {
					t.Error(err)
				}
				_, err = hub.Channels(ctx, channels.ChannelsQuery{})
				if code(err) != "store_unavailable" || time.Since(begin) > limit {
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
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			nodes, err := r.store.Store.Replicas(context.Background())
			require.NoError(t, err)
			for _, n := range nodes {
				require.Less(t, time.Since(n.Seen), 6*time.Second, "yellow after 7 s")
			}
		}
		require.Equal(t, "red: canary lost: store", r.status(0, "r0"))
		r.store.hangs.Store(false)
	})
}

// stubborn is a Store that can be read but refuses all writes, as a full one does.
type stubborn struct {
	store.Store
	refuses atomic.Bool
}

func (s *stubborn) err() error {
	if s.refuses.Load() {
		return fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	return nil
}

func (s *stubborn) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if err := s.err(); err != nil {
		return store.Position{}, false, err
	}
	return s.Store.Append(ctx, ch, e, o)
}

func (s *stubborn) Report(ctx context.Context, r store.Report) (bool, error) {
	if err := s.err(); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

func (s *stubborn) UpdatePresence(ctx context.Context, node string, changes []store.PresenceChange) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.UpdatePresence(ctx, node, changes)
}

// While the Store takes no reports, it cannot tell whether a replica lives. A replica
// that is silent is red, and the mesh keeps its peers.
func TestADeadReplicaIsRedWhileTheStoreTakesNoReports(t *testing.T) {
	var full *stubborn
	var meshes []*brittle
	var ds []*discoverer
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		full.refuses.Store(true)
		meshes[2].mute.Store(true) // r2 is killed
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
		peers, _ := ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1", "r2": "tcp://r2"}, peers, "who cannot report may live")

		full.refuses.Store(false)
		r.store.mute.Store("r2")
		time.Sleep(8 * time.Second)
		require.Equal(t, "green", r.status(0, "r1"))
		peers, _ = ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1"}, peers, "who lives has reported by now")
	}, func(_ int, o *channels.Options) {
		if full == nil {
			full = &stubborn{Store: o.Store}
		}
		o.Store = full
	}, breakable(&meshes), func(_ int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		ds = append(ds, d)
		o.Mesh = d
	})
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
		for range 25 {
			time.Sleep(100 * time.Millisecond)
			peers, _ := ds[0].told()
			require.Len(t, peers, 3)
		}
		r.store.mute.Store("")
		time.Sleep(10 * time.Second)
		peers, _ := ds[0].told()
		require.Len(t, peers, 3)
	}, func(_ int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		ds = append(ds, d)
		o.Mesh = d
	})
}

func TestNodesWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond) // its heartbeats and canaries come at whole seconds
		r.store.down.Store(true)
		time.Sleep(8 * time.Second)
		require.Equal(t, "yellow: report late: store, canary late: store", r.status(0, "r0"))
		time.Sleep(30 * time.Second)
		require.Equal(t, "red: reports lost: store, canary lost: store", r.status(0, "r0"))
		require.Equal(t, "red: reports lost: store, canary lost: store", r.status(0, "r1"), "as it says itself, over the mesh")
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))
	})
}

// panicking is a store and a mesh; some of its calls can be made to panic.
type panicking struct {
	store.Store
	node                     mesh.Mesh
	tops, subscribe, publish atomic.Bool
}

func (p *panicking) Close() error { return nil }

func (p *panicking) Unsubscribe(ch string) error { return p.node.Unsubscribe(ch) }

func (p *panicking) Status() mesh.Status { return p.node.Status() }

func (p *panicking) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	return p.node.Receive(ctx, deliver)
}

func (p *panicking) Tops(ctx context.Context, names []string) ([]store.Position, error) {
	if p.tops.Load() {
		panic("Tops")
	}
	return p.Store.Tops(ctx, names)
}

func (p *panicking) Subscribe(channel string) error {
	if p.subscribe.Load() {
		panic("Subscribe")
	}
	return p.node.Subscribe(channel)
}

func (p *panicking) Publish(ctx context.Context, packet mesh.Packet) error {
	if p.publish.Load() {
		panic("Publish")
	}
	return p.node.Publish(ctx, packet)
}

// If the app's Store or Mesh panics while a client connects, the process lives,
// and nothing of the client is left.
func TestAStoreOrMeshThatPanics(t *testing.T) {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	node := meshtest.NewNetwork(1).Join("n")
	t.Cleanup(func() { node.Close() })
	p := &panicking{Store: m, node: node}
	s := serve(t, channels.Options{Store: p, Mesh: p, ReplicaID: "n", MaxConnections: 1, Channel: func(name string) channels.ChannelOptions {
		if name == "plain" {
			return channels.ChannelOptions{Presence: channels.PresenceEvents}
		}
		return channels.ChannelOptions{Presence: channels.PresenceEvents, HistorySize: 10}
	}})
	for _, flag := range []*atomic.Bool{&p.tops, &p.subscribe} {
		flag.Store(true)
		for range 3 {
			require.GreaterOrEqual(t, s.handshake("/channel/c/").status, 500)
			require.NotEmpty(t, s.do("GET", "/channel/c/", "", "Accept", "text/event-stream").code())
			if flag == &p.subscribe {
				require.GreaterOrEqual(t, s.handshake("/channel/plain/").status, 500)
			}
		}
		flag.Store(false)
	}
	p.publish.Store(true) // of the event that somebody has come
	w := s.join("plain", "")
	p.publish.Store(false)
	w.c.CloseNow()
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	until(t, "there is room", func() bool {
		w, _, err := s.tryDial("/channel/c/", nil)
		if err == nil {
			w.c.CloseNow()
		}
		return err == nil
	})
}
