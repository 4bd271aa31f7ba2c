//go:build !windows

package redismesh_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// relays gives each replica its own relay to one server.
func relays(t *testing.T, s *redistest.Server, change ...func(*redis.Options)) (a, b *basetest.Relay, client func(string) redis.UniversalClient) {
	a, b = basetest.NewRelay(t, s.Addr), basetest.NewRelay(t, s.Addr)
	return a, b, func(id string) redis.UniversalClient {
		return redistest.NewClient(t, map[string]*basetest.Relay{"a": a, "b": b}[id].Addr, change...)
	}
}

// hole returns a judge that swallows pieces with one of the texts. fallen is set
// once it has done so.
func hole(texts ...string) (judge basetest.Judge, fallen *atomic.Bool) {
	fallen = new(atomic.Bool)
	return func(piece []byte) basetest.Fate {
		for _, text := range texts {
			if strings.Contains(strings.ToLower(string(piece)), text) {
				fallen.Store(true)
				return basetest.Swallow
			}
		}
		return basetest.Pass
	}, fallen
}

// A connection whose subscriptions are never confirmed is closed, and the next
// one works.
func TestUnconfirmedSubscription(t *testing.T) {
	for name, text := range map[string]string{
		"the first": ":all",
		"channels":  ":c:c",
		"the last":  ":n:b",
		"handshake": "hello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			_, b, client := relays(t, s)
			l := newLedger(t, client)
			before := l.b.Status().Lost
			judge, fallen := hole(text)
			b.ToServer(judge)
			b.Cut()
			eventually(t, "a connection falls into the hole", func() bool { return fallen.Load() && l.b.Status().Err != nil })
			b.ToServer(nil)
			l.told(before)
			l.check()
			eventually(t, "Status is healthy", func() bool { return l.b.Status().Err == nil })
		})
	}
}

// A connection on which a later subscription is not confirmed is closed too,
// although all earlier ones go on.
func TestUnconfirmedSubscriptionOfALinkThatIsUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	_, b, client := relays(t, s)
	l := newLedger(t, client)
	eventually(t, "the link is up", func() bool { return l.b.Status().Err == nil })
	judge, fallen := hole(":c:late")
	b.ToServer(judge)
	require.NoError(t, l.b.Subscribe("late"))
	eventually(t, "the subscription falls into the hole", fallen.Load)
	require.NoError(t, l.b.Status().Err)
	before := l.b.Status().Lost
	b.ToServer(nil)
	l.told(before)
	eventually(t, "Redis has it", func() bool { return strings.Contains(s.Do("PUBSUB", "CHANNELS"), ":c:late") })
	l.check()
}

// Publishing recovers even if the link cannot subscribe.
func TestPublishingComesBackWithoutASubscription(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	r := basetest.NewRelay(t, s.Addr)
	judge, _ := hole("subscribe")
	r.ToServer(judge)
	m := open(t, redistest.NewClient(t, r.Addr), "", "a")
	say := func() error { return m.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "h"}) }
	eventually(t, "publishing works", func() bool { return say() == nil })
	sent := func() bool { return m.Status().Peers[0].Queued == 0 }
	eventually(t, "a packet is sent", sent)
	s.Kill()
	eventually(t, "publishing fails", func() bool { return say() != nil })
	eventually(t, "what waited is dropped", func() bool { return m.Status().Dropped > 0 })
	s.Start()
	eventually(t, "publishing goes on", func() bool { return say() == nil })
	eventually(t, "published packets are sent", sent)
}

// A dialer that hangs and ignores its context blocks nothing for ever.
func TestDialerThatHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var dials atomic.Int64
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	c := s.Client(func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) <= 2 {
				<-end
				return nil, net.ErrClosed
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	})
	m := newInbox(t, c, "", "a")
	m.active(t, "x")
	eventually(t, "it can publish", func() bool { return m.Status().Peers[0].RTT > 0 })
}

// A client without timeouts would wait for ever; the mesh does not.
func TestClientWithoutTimeouts(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := newLedger(t, func(string) redis.UniversalClient {
		return s.Client(func(o *redis.Options) { o.ReadTimeout, o.WriteTimeout = -2, -2 })
	})
	s.Signal(syscall.SIGSTOP)
	eventually(t, "Status reports that Redis is away", func() bool { return l.a.Status().Err != nil && l.b.Status().Err != nil })
	s.Signal(syscall.SIGCONT)
	l.check()
}

// A master stops while it takes many subscriptions: the next master gets them.
func TestMasterStopsWhileItTakesSubscriptions(t *testing.T) {
	t.Parallel()
	const n = 20_000
	s := redistest.StartSentinel(t)
	m := newInbox(t, s.Client(), "", "a")
	for i := range n {
		require.NoError(t, m.Subscribe(fmt.Sprint("c", i)))
	}
	subscribed := func(s *redistest.Server) func() bool {
		return func() bool { // the number first: the list of all names is long
			number, _ := strconv.Atoi(s.Info("stats", "pubsub_channels"))
			return number >= n+2 && channelsOf(s) == n+2
		}
	}
	eventually(t, "all channels are subscribed to", subscribed(s.Master))
	s.FailOverSoon()
	s.Master.Do("CLIENT", "KILL", "TYPE", "pubsub")
	s.Master.Signal(syscall.SIGSTOP)
	eventually(t, "the replica is the master", func() bool { return s.Replica.Info("replication", "role") == "master" })
	eventually(t, "it has the subscriptions", subscribed(s.Replica))
	eventually(t, "Status is healthy", func() bool { st := m.Status(); return st.Err == nil && st.Peers[0].Up })
}

func channelsOf(s *redistest.Server) int {
	return len(strings.Fields(s.Do("PUBSUB", "CHANNELS", "*:mesh:*")))
}

// demote makes a server the replica of the other one.
func demote(t *testing.T, old, next *redistest.Server) {
	next.Do("REPLICAOF", "NO", "ONE")
	old.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(next.Port))
	eventually(t, "the old master follows the new one", func() bool { return old.Info("replication", "master_link_status") == "up" })
}

// A failover behind one name. PUBLISH would still succeed on the old master,
// which is a replica now, but would reach nobody.
func TestDemotedServerIsLeft(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			t.Parallel()
			s1 := redistest.Start(t)
			s2 := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(s1.Port))
			a, b, client := relays(t, s1, func(o *redis.Options) { o.Protocol = protocol })
			l := newLedger(t, client)
			for _, to := range []*redistest.Server{s2, s1, s2} {
				from := map[*redistest.Server]*redistest.Server{s1: s2, s2: s1}[to]
				before := l.b.Status().Lost
				demote(t, from, to)
				a.Lead(to.Addr)
				b.Lead(to.Addr)
				b.Cut() // the other replica notices without it
				l.told(before)
				l.live()
				eventually(t, "nobody is subscribed at the old master", func() bool { return channelsOf(from) == 0 })
			}
			l.check()
		})
	}
}

// The mesh does not publish on a replica, and Status tells why.
func TestReplicaIsRefused(t *testing.T) {
	t.Parallel()
	s1 := redistest.Start(t)
	s2 := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(s1.Port))
	r := basetest.NewRelay(t, s2.Addr)
	m := open(t, redistest.NewClient(t, r.Addr), "", "a")
	eventually(t, "Status explains the problem", func() bool {
		err := m.Status().Err
		return err != nil && strings.Contains(err.Error(), "must connect to the master") && m.Publish(t.Context(), mesh.Packet{}) != nil
	})
	r.Lead(s1.Addr)
	eventually(t, "the mesh finds the master", func() bool { return m.Status().Err == nil && m.Publish(t.Context(), mesh.Packet{}) == nil })
}

func TestClusterMasterSteps(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 2, true)
	l := newLedger(t, func(string) redis.UniversalClient { return c.Client() })
	before := l.b.Status().Lost
	c.Replicas[0].Do("CLUSTER", "FAILOVER")
	eventually(t, "the replica is master", func() bool { return c.Replicas[0].Info("replication", "role") == "master" })
	l.told(before)
	l.check()
	eventually(t, "all lanes are back", func() bool { return l.a.Status().Err == nil && l.b.Status().Err == nil })
}

func TestSentinelMasterSteps(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	l := newLedger(t, func(string) redis.UniversalClient { return s.Client() })
	before := l.b.Status().Lost
	s.Sentinels[0].Do("SENTINEL", "FAILOVER", "main")
	eventually(t, "the replica is master", func() bool { return s.Replica.Info("replication", "role") == "master" })
	l.told(before)
	l.check()
	eventually(t, "nobody is subscribed at the old master", func() bool { return channelsOf(s.Master) == 0 })
}

// Sentinel decides, even if the old master has not heard of it.
func TestSentinelNamesAnotherMaster(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	l := newLedger(t, func(string) redis.UniversalClient { return s.Client() })
	before := l.b.Status().Lost
	for _, w := range s.Sentinels {
		w.Do("SENTINEL", "REMOVE", "main")
	}
	s.Replica.Do("REPLICAOF", "NO", "ONE")
	for _, w := range s.Sentinels {
		w.Do("SENTINEL", "MONITOR", "main", "127.0.0.1", strconv.Itoa(s.Replica.Port), "2")
	}
	l.told(before)
	l.check()
	eventually(t, "nobody is subscribed at the old master", func() bool { return channelsOf(s.Master) == 0 })
	require.Equal(t, "master", s.Master.Info("replication", "role"))
}

// Peer.Since is when either direction last changed, or since when the first of
// them has been down.
func TestSinceWhileDown(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rights := []string{"ACL", "SETUSER", "u", "on", ">x", "+publish", "+subscribe", "+unsubscribe", "+hello", "+client", "&*"}
	s.Do(rights...)
	m := open(t, s.Client(func(o *redis.Options) { o.Username, o.Password = "u", "x" }), "", "a")
	peer := func() mesh.Peer { return m.Status().Peers[0] }
	eventually(t, "the mesh is up", func() bool { p := peer(); return p.Up && p.RTT > 0 })
	for range 2 {
		change := time.Now()
		s.Do("ACL", "SETUSER", "u", "-publish")
		eventually(t, "publishing fails", func() bool { return !peer().Up })
		down := peer()
		require.Contains(t, down.Err, "NOPERM")
		require.True(t, down.Since.After(change), "Since is when publishing broke")
		change = time.Now()
		s.Do(rights...)
		eventually(t, "publishing goes on", func() bool { return peer().Up })
		require.True(t, peer().Since.After(change), "Since is when publishing recovered")
		require.Empty(t, peer().Err)
	}
}

// A lane's queue is a quarter of a whole one, and still takes the largest body
// behind other packets.
func TestLargestBodyWaitsBehindOthers(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 2, false)
	l := newLedger(t, func(string) redis.UniversalClient { return c.Client() })
	m := open(t, c.Client(), "", "m") // the ledger's packets would find the lane full
	eventually(t, "all lanes are up", func() bool { return m.Status().Err == nil && m.Status().Peers[0].Queued == 0 })
	before := m.Status().Dropped // those while the lanes came up
	for _, s := range c.Masters {
		s.Signal(syscall.SIGSTOP)
	}
	for _, size := range []int{1 << 10, m.MaxBody()} {
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Channel: "nobody's", Body: make([]byte, size)}))
	}
	require.Equal(t, before, m.Status().Dropped)
	require.Greater(t, m.Status().Peers[0].Queued, m.MaxBody())
	for _, s := range c.Masters {
		s.Signal(syscall.SIGCONT)
	}
	eventually(t, "the servers take what waits", func() bool { return m.Status().Peers[0].Queued == 0 })
	l.check()
}
