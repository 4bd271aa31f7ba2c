package connect

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// recovered wants a client to be back in a channel, with nothing missed.
func recovered(t *testing.T, c *client, channel string) {
	t.Helper()
	e := c.want("subscribed", channel)
	require.True(t, e.WasRecovering)
	require.True(t, e.Recovered)
}

// shortCut is a network that is away for a moment: the server notices at once.
func shortCut(t *testing.T, k kind) {
	s := serve(t, settings{history: 100})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})
	s.say("c", "0")
	alice.hears("c", "0")
	s.road.Part()
	alice.want("connecting", "")
	require.Equal(t, "alice", next(t, "the end", s.left).user)
	s.say("c", numbers(1, 10)...)
	s.road.Lead(s.replicas[0].addr())
	recovered(t, alice, "c")
	s.say("c", "10")
	all := alice.hears("c", numbers(1, 11)...)
	require.EqualValues(t, 11, all[9].Offset)
	alice.says("c", "11")
	alice.hears("c", "11")
	require.Equal(t, 12, alice.count("publication", "c"))
}

// longCut is a network that swallows everything for 60 s, in a world whose clocks
// are 8 times as fast: the server pings every 3 s, not every 25 s. So each side has
// to find out by itself, by what does not come. The network returns when both have,
// and when the client's first attempts have failed.
func longCut(t *testing.T, k kind) {
	s := serve(t, settings{history: 1000, ping: 3 * time.Second})
	alice := s.open(k, "alice", func(o *introduction) { o.PingDelay, o.Timeout = 1000, 3000 })
	alice.online()
	alice.in("c", interest{})
	s.say("c", "0")
	alice.hears("c", "0")
	taken := s.road.Taken()
	s.road.hold(true)
	s.road.Lead("127.0.0.1:1") // where nobody listens
	s.say("c", numbers(1, 400)...)
	alice.want("connecting", "")
	require.Equal(t, "alice", next(t, "the end", s.left).user)
	alice.want("error", "")
	require.Equal(t, taken, s.road.Taken())
	s.road.Cut()
	s.road.release()
	s.road.Lead(s.replicas[0].addr())
	recovered(t, alice, "c")
	s.say("c", "400")
	alice.hears("c", numbers(1, 401)...)
	require.Equal(t, 401, alice.count("publication", "c"))
}

// trimmed misses more than the channel keeps.
func trimmed(t *testing.T, k kind) {
	s := serve(t, settings{history: 5})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})
	alice.in("d", interest{})
	s.say("c", "0")
	alice.hears("c", "0")
	s.road.Part()
	alice.want("connecting", "")
	s.say("c", numbers(1, 20)...)
	s.say("d", "1")
	s.road.Lead(s.replicas[0].addr())
	back := alice.joins("c", "d")
	require.True(t, back["c"].WasRecovering)
	require.False(t, back["c"].Recovered)
	require.True(t, back["d"].Recovered, "the other channel lost nothing")
	alice.hears("d", "1")
	s.say("c", "20")
	require.EqualValues(t, 21, alice.hears("c", "20")[0].Offset)
}

// restarted loses the epoch: the replica that comes next has an empty memory.
func restarted(t *testing.T, k kind) {
	s := serve(t, settings{history: 10})
	alice := s.open(k, "alice", nil)
	alice.online()
	before := alice.in("c", interest{})
	s.say("c", "0", "1")
	alice.hears("c", "0", "1")
	s.road.Part()
	alice.want("connecting", "")
	s.shared = inMemory(t)
	s.road.Lead(s.start().addr())
	e := alice.want("subscribed", "c")
	require.True(t, e.WasRecovering)
	require.False(t, e.Recovered)
	require.NotEqual(t, before.Epoch, e.Epoch)
	s.say("c", "2")
	require.EqualValues(t, 1, alice.hears("c", "2")[0].Offset)

	// The new epoch holds from here on.
	s.road.Cut()
	alice.want("connecting", "")
	s.say("c", "3")
	recovered(t, alice, "c")
	alice.hears("c", "3")
}

// slowReader reads nothing for a while. The server closes it, and loses nothing.
func slowReader(t *testing.T, k kind) {
	s := serve(t, settings{history: 10_000, small: true})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})
	body := func(i int) string { return fmt.Sprintf(`"%d %s"`, i, strings.Repeat("x", 3000)) }
	// Who still catches up is not slow, but reads from the Store at its own pace.
	s.say("c", "0")
	alice.hears("c", "0")
	s.road.hold(false)
	n := 0
	for ; s.replicas[0].slow() == 0; n++ {
		require.Less(t, n, 5000, "the server does not notice")
		s.say("c", body(n))
	}
	s.say("c", body(n)) // nobody is there for it
	n++
	s.road.release()
	require.Equal(t, 3008, alice.want("connecting", "").Code)
	recovered(t, alice, "c")
	for i := range n {
		alice.hears("c", body(i))
	}
	s.say("c", "1")
	alice.hears("c", "1")
	require.Equal(t, n+2, alice.count("publication", "c"))
}

// talk publishes numbers through the last replica, until the returned function is
// called. That says how many there were.
func (s *site) talk(channel string) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	n, talking := 0, sync.WaitGroup{}
	talking.Go(func() { // ends with ctx
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			s.say(channel, fmt.Sprint(n))
			n++
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	stop = func() int {
		cancel()
		talking.Wait()
		return n
	}
	s.t.Cleanup(func() { stop() })
	return stop
}

// drained has the replica of some clients shut down in an orderly way, while
// messages come through another one.
func drained(t *testing.T, k kind) {
	s := serve(t, settings{history: 100_000, replicas: 2})
	all := []*client{s.open(k, "alice", nil), s.open(k, "bob", nil)}
	for _, c := range all {
		c.online()
		c.in("c", interest{})
	}
	stop := s.talk("c")
	s.road.Lead(s.replicas[1].addr()) // as a load balancer does that has asked /readyz
	s.replicas[0].drain()
	for _, c := range all {
		require.Equal(t, 3001, c.want("connecting", "").Code)
		recovered(t, c, "c")
	}
	n := stop()
	for _, c := range all {
		c.hears("c", numbers(0, n)...)
		c.says("d", "1") // it is at home there
		require.Equal(t, 2, c.count("connecting", ""), "%s had to come back once", c.name)
		require.Zero(t, c.count("disconnected", ""))
	}
}

// killed has the replica of a client end without a word.
func killed(t *testing.T, k kind) {
	redis := redistest.Start(t).Addr
	o := settings{history: 100_000}
	s := serveWith(t, o, inRedis(t, redis))
	doomed := startProcess(t, o, redis)
	s.road.Lead(doomed.addr)
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})
	stop := s.talk("c")
	alice.await(0, "a message", func(e event) bool { return e.Type == "publication" })
	s.road.Lead(s.replicas[0].addr())
	doomed.Kill()
	alice.want("connecting", "")
	recovered(t, alice, "c")
	n := stop()
	alice.hears("c", numbers(0, n)...)
	require.Equal(t, n, alice.count("publication", "c"))
	require.Zero(t, alice.count("disconnected", ""))
}

// beforeTheFirst has clients subscribe at two replicas before the first message. Only
// one of these can name the log, and no client may miss a message for that.
func beforeTheFirst(t *testing.T, k kind) {
	s := serveWith(t, settings{history: 100, replicas: 2}, inRedis(t, redistest.Start(t).Addr))
	alice := s.open(k, "alice", nil)
	alice.online()
	bob := s.openAt(k, s.replicas[1].addr(), []string{k.transport}, "bob", nil)
	bob.online()
	for _, c := range []*client{alice, bob} {
		c.in("c", interest{})
	}
	for n := range 3 {
		s.replicas[n%2].publish("c", fmt.Sprint(n))
		for _, c := range []*client{alice, bob} {
			c.hears("c", fmt.Sprint(n))
		}
	}
	s.road.Part()
	alice.want("connecting", "")
	s.say("c", numbers(3, 6)...)
	s.road.Lead(s.replicas[1].addr())
	recovered(t, alice, "c")
	for _, c := range []*client{alice, bob} {
		c.hears("c", numbers(3, 6)...)
		require.Equal(t, 6, c.count("publication", "c"))
		require.Zero(t, c.count("disconnected", ""))
	}
	bob.stayed()
}

// moved has a proxy send a client to another replica and back, with channels of both
// sorts.
func moved(t *testing.T, k kind) {
	s := serve(t, settings{history: 100, replicas: 2, presence: true})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	alice.online()
	bob.online()
	for _, c := range []*client{alice, bob} {
		c.in("c", interest{})
		c.in("plain", interest{})
	}
	for i := range 3 {
		s.road.Lead(s.replicas[(i+1)%2].addr())
		s.road.Cut()
		for _, c := range []*client{alice, bob} {
			c.want("connecting", "")
			c.want("connected", "")
			c.joins("c", "plain")
		}
		alice.says("c", fmt.Sprint(i))
		alice.says("plain", fmt.Sprint(i))
		for _, c := range []*client{alice, bob} {
			c.hears("c", fmt.Sprint(i))
			c.hears("plain", fmt.Sprint(i))
		}
		basetest.Eventually(t, "both are there, and nobody else", func() bool {
			n, err := alice.presenceStats("c")
			require.NoError(t, err)
			return n == crowd{2, 2}
		})
	}
	require.Equal(t, 3, alice.count("publication", "c"))
}
