//go:build !windows

package redismesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A ledger is a replica that publishes 1, 2, 3 … on some channels, another one
// that subscribes to them, and the packets that the second may miss: only those
// published before a KindLost, or refused.
type ledger struct {
	t    *testing.T
	a, b *redismesh.Mesh
	calm atomic.Bool // publish at calmPace

	mu    sync.Mutex // guards the fields below
	heard time.Time  // when something last arrived
	begun int
	acked []int
	got   map[int]bool
	last  map[string]int // by channel, to check the order
	safe  map[string]int // by channel: losses up to this number are excused
}

const ledgerChannels = 40

// A ledger publishes at busyPace. While nothing arrives, so that all of it would
// be excused, or where a test waits for a timeout, it publishes at calmPace.
const (
	busyPace = 500 * time.Microsecond
	calmPace = 10 * time.Millisecond
)

// ledgerChannel is the name of the channel that number i is published on.
func ledgerChannel(i int) string { return ledgerNames[i%ledgerChannels] }

var ledgerNames = func() (names [ledgerChannels]string) {
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	return names
}()

func newLedger(t *testing.T, client func(id string) redis.UniversalClient) *ledger {
	l := &ledger{t: t, got: map[int]bool{}, last: map[string]int{}, safe: map[string]int{}}
	l.a, l.b = open(t, client("a"), "", "a"), open(t, client("b"), "", "b")
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { _ = l.b.Receive(ctx, l.take) })
	for i := range ledgerChannels {
		require.NoError(t, l.b.Subscribe(ledgerChannel(i)))
	}
	running.Go(func() { // ends with ctx
		pace := busyPace
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.publish()
			}
			if now := l.pace(); now != pace {
				pace = now
				tick.Reset(pace)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	l.live()
	return l
}

func (l *ledger) pace() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calm.Load() || time.Since(l.heard) > 200*time.Millisecond {
		return calmPace
	}
	return busyPace
}

func (l *ledger) publish() {
	l.mu.Lock()
	l.begun++
	i := l.begun
	l.mu.Unlock()
	err := l.a.Publish(context.Background(), mesh.Packet{Channel: ledgerChannel(i), Header: strconv.Itoa(i)})
	if err == nil {
		l.mu.Lock()
		l.acked = append(l.acked, i)
		l.mu.Unlock()
	}
}

func (l *ledger) take(p mesh.Packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	if p.Kind == mesh.KindLost {
		l.safe[p.Channel] = l.begun
		return
	}
	i, err := strconv.Atoi(p.Header)
	assert.NoError(l.t, err)
	assert.Greater(l.t, i, l.last[p.Channel], "a packet came twice or out of order")
	l.last[p.Channel] = i
	l.got[i] = true
}

// live waits until each channel gets a packet that is published from now on.
func (l *ledger) live() {
	l.t.Helper()
	l.mu.Lock()
	from := l.begun
	l.mu.Unlock()
	eventually(l.t, "packets arrive on all channels", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range ledgerChannels {
			ch := ledgerChannel(i)
			if l.last[ch] <= max(from, l.safe[ch], l.safe[""]) {
				return false
			}
		}
		return true
	})
}

// check waits until every acknowledged packet that is not excused has arrived.
func (l *ledger) check() {
	l.t.Helper()
	l.live()
	missing := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if missing = l.missing(); missing == 0 {
			return
		}
	}
	require.Fail(l.t, "a packet was lost without a KindLost", "%d", missing)
}

// missing returns a packet that should have arrived and has not. It leaves out
// the newest ones, which are on their way.
func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.acked {
		ch := ledgerChannel(i)
		if i > max(l.safe[ch], l.safe[""]) && i < l.last[ch] && !l.got[i] {
			return i
		}
	}
	return 0
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
		_ = l.a.Publish(t.Context(), mesh.Packet{Channel: "nobody's", Body: body})
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
	stop := make(chan struct{})
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
				for {
					select {
					case <-stop:
						return
					default:
					}
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
	close(stop)
	publishing.Wait()
	top := uint64(0)
	for offset := range acked {
		top = max(top, offset)
	}
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
