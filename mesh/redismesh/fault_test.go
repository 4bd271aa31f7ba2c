//go:build !windows

package redismesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/streamtest"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A ledger is a replica that publishes numbers on 40 channels, and another one that
// subscribes to them. The second may miss only those published before a KindLost, or
// refused.
type ledger struct {
	t    *testing.T
	a, b *redismesh.Mesh
	view *streamtest.View // of b, of what a publishes
}

func newLedger(t *testing.T, client func(id string) redis.UniversalClient) *ledger {
	t.Helper()
	l := &ledger{t: t, a: open(t, client("a"), "", "a"), b: open(t, client("b"), "", "b")}
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("c", i))
		require.NoError(t, l.b.Subscribe(names[i]))
	}
	l.view = streamtest.Start(t, l.a, "a", 500*time.Microsecond, names...).Watch("b")
	var receiving sync.WaitGroup
	receiving.Go(func() { _ = l.b.Receive(t.Context(), l.view.Take) })
	t.Cleanup(receiving.Wait)
	l.live()
	return l
}

// live waits until each channel gets a packet that is published from now on.
func (l *ledger) live() {
	l.t.Helper()
	l.view.AwaitLive(l.t)
}

// check waits until every acknowledged packet that is not excused has arrived. It
// ends the publishing.
func (l *ledger) check() {
	l.t.Helper()
	l.live()
	l.view.RequireAll(l.t)
}

// told waits for a KindLost after the first before ones.
func (l *ledger) told(before int64) {
	l.t.Helper()
	eventually(l.t, "a KindLost reports the loss", func() bool { return l.b.Status().Lost > before })
}

func clientOf(s *redistest.Server) func(string) redis.UniversalClient {
	return func(string) redis.UniversalClient { return s.Client() }
}

func TestKilledConnectionsAreTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := newLedger(t, clientOf(s))
	for i := range 30 {
		before := l.b.Status().Lost
		if i%2 == 0 {
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
			l.told(before)
		} else {
			s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		}
		l.live()
	}
	l.check()
}

func TestStoppedServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := newLedger(t, func(string) redis.UniversalClient { // commands to a stopped server are sent again
		return s.Client(func(o *redis.Options) { o.ReadTimeout = time.Second })
	})
	s.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	eventually(t, "Status reports that Redis is away", func() bool {
		st := l.a.Status()
		return st.Err != nil && !st.Peers[0].Up && st.Peers[0].Err != ""
	})
	require.Error(t, l.a.Publish(t.Context(), mesh.Packet{Channel: "c"}), "no peer can be reached")
	time.Sleep(time.Until(stopped.Add(5 * time.Second))) // the point of the test: 5 s
	s.Signal(syscall.SIGCONT)
	l.check()
	require.NoError(t, l.a.Status().Err)
}

// Close gives up what Redis does not take, and logs it.
func TestCloseLogsWhatItDrops(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var log basetest.Log
	m, err := redismesh.New(s.Client(), redismesh.Options{Logger: log.Logger()})
	require.NoError(t, err)
	eventually(t, "Status is healthy", func() bool { return m.Status().Err == nil })
	s.Signal(syscall.SIGSTOP)
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Header: "h"}))
	require.NoError(t, m.Close())
	require.Contains(t, log.String(), "closed before Redis had taken all")
}

func TestRestartedServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := newLedger(t, clientOf(s))
	for range 3 {
		before := l.b.Status().Lost
		s.Kill()
		eventually(t, "Status reports that Redis is away", func() bool { return l.a.Status().Err != nil && l.b.Status().Err != nil })
		s.Start()
		l.told(before)
		l.live()
	}
	l.check()
}

// A server that is down when the mesh is opened is found later.
func TestServerThatComesLater(t *testing.T) {
	t.Parallel()
	s := redistest.New(t)
	m := open(t, s.Client(), "", "m") // "a" and "b" belong to the ledger
	require.NoError(t, m.Subscribe("x"))
	eventually(t, "publishing fails", func() bool { return m.Publish(t.Context(), mesh.Packet{Channel: "x"}) != nil })
	require.Error(t, m.Status().Err)
	s.Start()
	newLedger(t, clientOf(s)).check()
	eventually(t, "publishing goes on by itself", func() bool { return m.Publish(t.Context(), mesh.Packet{Channel: "x"}) == nil })
	eventually(t, "Status is healthy", func() bool { st := m.Status(); return st.Err == nil && st.Peers[0].RTT > 0 })
}

// The probe detects a connection that looks alive but brings nothing.
func TestSilentlyDeadSubscription(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	_, b, client := relays(t, s)
	l := newLedger(t, client)
	before := l.b.Status().Lost
	judge, _ := hole("message\r\n", "subscribe\r\n")
	b.ToClient(judge)
	eventually(t, "the probe does not come back", func() bool { return l.b.Status().Err != nil })
	b.ToClient(nil)
	l.told(before)
	l.check()
}

// A full queue drops packets, counts them, and makes the peers get a KindLost.
func TestFullQueueIsTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := newLedger(t, clientOf(s))
	before := l.b.Status().Lost
	s.Signal(syscall.SIGSTOP)
	body := json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	eventually(t, "packets are dropped", func() bool {
		for i := 0; i < 8 && l.a.Status().Dropped == 0; i++ {
			_ = l.a.Publish(t.Context(), mesh.Packet{Channel: "nobody's", Body: body})
		}
		return l.a.Status().Dropped > 0
	})
	require.LessOrEqual(t, l.a.Status().Peers[0].Queued, 66<<20)
	s.Signal(syscall.SIGCONT)
	l.told(before)
	l.check()
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	l := newLedger(t, func(string) redis.UniversalClient { return s.Client() })
	before := l.b.Status().Lost
	s.FailOverSoon()
	s.Master.Kill()
	l.told(before)
	l.check()
	require.Equal(t, "master", s.Replica.Info("replication", "role"))
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, true)
	l := newLedger(t, func(string) redis.UniversalClient { return c.Client() })
	before := l.b.Status().Lost
	c.FailOverSoon()
	c.Masters[1].Kill()
	l.told(before)
	l.check()
	eventually(t, "all lanes are back", func() bool { return l.a.Status().Err == nil && l.b.Status().Err == nil })
}

// A slot that moves to another server takes its subscriptions with it.
func TestMovedSlots(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 2, false)
	l := newLedger(t, func(string) redis.UniversalClient { return c.Client() })
	requireSharded(t, c)
	for _, to := range []int{0, 1} {
		before := l.b.Status().Lost
		target, source := c.Masters[to], c.Masters[1-to]
		id, from := target.Do("CLUSTER", "MYID"), source.Do("CLUSTER", "MYID")
		for _, tag := range []string{"18", "3", "48", "405"} {
			slot := target.Do("CLUSTER", "KEYSLOT", tag)
			// A server that has not been importing a slot gets no new epoch
			// with it, and may lose the slot again to the other one's gossip.
			target.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from)
			for _, s := range []*redistest.Server{target, source} {
				require.Equal(t, "OK", s.Do("CLUSTER", "SETSLOT", slot, "NODE", id))
			}
		}
		l.told(before)
		l.live()
	}
	l.check()
}

// requireSharded checks that a Cluster's servers share the work.
func requireSharded(t *testing.T, c *redistest.Cluster) {
	t.Helper()
	for _, s := range c.Masters {
		require.Empty(t, s.Do("PUBSUB", "CHANNELS"), "SUBSCRIBE would send everything to every server")
		require.Greater(t, len(strings.Fields(s.Do("PUBSUB", "SHARDCHANNELS"))), 10)
	}
}

// Two hubs whose connections are killed again and again: on both, a channel
// with history has everything that was acknowledged, once and in order.
func TestHistoryLosesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var hubs []*channels.Hub
	for _, id := range []string{"a", "b"} {
		st, err := redisstore.New(s.Client(), redisstore.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { st.Close() })
		hubs = append(hubs, hubtest.NewHub(t, channels.Options{ReplicaID: id, Store: st, Mesh: open(t, s.Client(), "", id),
			Channel: func(string) channels.ChannelOptions {
				return channels.ChannelOptions{HistorySize: 1_000_000, HistoryTTL: time.Hour}
			}}))
	}
	var mu sync.Mutex
	acked := map[uint64]bool{}
	got := make([][]uint64, len(hubs))
	var stop atomic.Bool
	var publishing, receiving sync.WaitGroup
	t.Cleanup(receiving.Wait)
	for i, hub := range hubs {
		sub, err := hub.Subscribe(context.Background(), "x", nil)
		require.NoError(t, err)
		receiving.Go(func() { // ends with sub
			for m, err := range sub.Messages() {
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				got[i] = append(got[i], m.Position.Offset)
				mu.Unlock()
			}
		})
		t.Cleanup(sub.Close)
		for range 4 {
			publishing.Go(func() {
				for !stop.Load() {
					res, err := hub.Publish(context.Background(), "x", channels.Message{Header: "h", Body: []byte("1")})
					if err == nil {
						mu.Lock()
						acked[res.Position.Offset] = true
						mu.Unlock()
					}
				}
			})
		}
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for range 20 {
		s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		goal := count() + 200
		eventually(t, "publishing goes on", func() bool { return count() >= goal })
	}
	stop.Store(true)
	publishing.Wait()
	top := slices.Max(slices.Collect(maps.Keys(acked)))
	eventually(t, "both have the last message", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !slices.ContainsFunc(got, func(offsets []uint64) bool { return len(offsets) == 0 || offsets[len(offsets)-1] < top })
	})
	mu.Lock()
	defer mu.Unlock()
	for _, offsets := range got {
		for k := 1; k < len(offsets); k++ {
			require.Equal(t, offsets[k-1]+1, offsets[k])
		}
	}
}
