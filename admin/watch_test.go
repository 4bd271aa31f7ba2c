package admin_test

import (
	"errors"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
)

// cluster is what a Watch sees: replicas that a test makes up.
type cluster struct {
	now time.Time
	all []channels.Replica
	err error
}

func (c *cluster) watch() *admin.Watch {
	c.now = time.Unix(1_000_000, 0)
	return admin.NewWatch(func() time.Time { return c.now }, func() ([]channels.Replica, error) {
		return append([]channels.Replica{}, c.all...), c.err
	})
}

// second lets a second pass, in which each replica publishes n messages.
func (c *cluster) second(w *admin.Watch, n int64) {
	c.now = c.now.Add(time.Second)
	for i := range c.all {
		c.all[i].Published += n
		c.all[i].Requests += 2 * n
		c.all[i].Delivered += 3 * n
	}
	w.Sample()
}

func replica(id string) channels.Replica {
	return channels.Replica{ID: id, Status: channels.ReplicaGreen, Started: time.Unix(5, 0), Stats: channels.Stats{Connections: 7}}
}

func TestRates(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b")}}
	w := c.watch()
	c.second(w, 10)
	p := w.Since(0)
	require.Len(t, p, 1)
	require.True(t, math.IsNaN(p[0].Publishes), "one look gives no rate")
	c.second(w, 10)
	require.Equal(t, []admin.Point{{1_000_002, 2, 2, 14, 40, 20, 60}}, w.Since(1_000_001))

	// A replica that starts anew counts from 0, and one that was silent counts not at all.
	c.all[0].Started, c.all[0].Published = time.Unix(6, 0), 0
	c.second(w, 5)
	require.Equal(t, 5.0, w.Since(1_000_002)[0].Publishes)
	c.all[1].Status, c.all[1].Reasons, c.all[1].Seen = channels.ReplicaYellow, []string{"heartbeat late"}, 8*time.Second
	c.second(w, 5)
	require.Equal(t, admin.Point{1_000_004, 2, 1, 7, 10, 5, 15}, w.Since(1_000_003)[0])
	c.all[1].Status, c.all[1].Reasons, c.all[1].Seen = channels.ReplicaRed, []string{"heartbeats missed"}, 11*time.Second
	c.second(w, 5)
	require.Equal(t, admin.Point{1_000_005, 2, 1, 7, 10, 5, 15}, w.Since(1_000_004)[0])

	// What cannot be seen is a gap.
	c.err = errors.New("closed")
	c.second(w, 5)
	require.Empty(t, w.Since(1_000_005))
}

// A replica is silent 4 s after its last heartbeat, or sooner if its link is down as well.
// Its numbers do not count from the moment that its link is down until another heartbeat
// comes.
func TestSilence(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b")}}
	w := c.watch()
	link := func(up ...bool) {
		c.all[0].Mesh = &channels.ReplicaMesh{}
		for _, is := range up {
			c.all[0].Mesh.Peers = append(c.all[0].Mesh.Peers, channels.ReplicaPeer{ID: "b", Up: is})
		}
	}
	see := func(seen float64, connections, green int) {
		t.Helper()
		c.all[1].Seen = time.Duration(seen * float64(time.Second))
		c.second(w, 10)
		p := w.Since(c.now.Unix() - 1)[0]
		require.Equal(t, [2]int{connections, green}, [2]int{p.Connections, p.Green})
	}
	link(true)
	see(0.5, 14, 2)
	see(3.9, 14, 2)
	require.Empty(t, w.Silent())
	see(4.1, 7, 1)
	require.Equal(t, map[string][]string{"b": {"silent"}}, w.Silent())
	see(0.5, 14, 2)
	link(false)
	see(0.9, 7, 2) // it may have been killed, or only its link was cut
	require.Empty(t, w.Silent())
	see(0.5, 14, 2) // it lives
	see(1.4, 14, 2)
	link(true)
	see(0.5, 14, 2)
	link(true, false) // it has come back under another address
	see(1.4, 14, 2)
	link(false, true)
	see(2.4, 14, 2)
	link(true)
	see(0.5, 14, 2)
	link(false)
	see(1.4, 7, 2)
	see(2.4, 7, 1)
	require.Equal(t, map[string][]string{"b": {"silent"}}, w.Silent())
	c.all[1].Status, c.all[1].Reasons = channels.ReplicaYellow, []string{"draining"}
	see(4.4, 7, 1)
	require.Equal(t, map[string][]string{"b": {"draining", "silent"}}, w.Silent())
	c.all[1].Reasons = []string{"heartbeat late"}
	see(7.4, 7, 1)
	require.Equal(t, map[string][]string{"b": {"silent"}}, w.Silent(), "it is still the same")
	c.all[1].Status, c.all[1].Reasons = channels.ReplicaRed, []string{"heartbeats missed"}
	see(10.4, 7, 1)
	require.Equal(t, map[string][]string{"b": {"heartbeats missed"}}, w.Silent())
}

// The page tells of a replica that has died for a while after the hub has forgotten it,
// and whether another one is in its place.
func TestTheDead(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b"), replica("c"), replica("d")}}
	w := c.watch()
	up := func(id string, d time.Duration) channels.Replica {
		r := replica(id)
		r.Uptime = d
		return r
	}
	see := func(want map[string]string) {
		t.Helper()
		c.second(w, 1)
		require.Equal(t, want, w.Fates())
	}
	see(map[string]string{})
	c.all[2].Draining = true
	see(map[string]string{})
	c.all = c.all[:2] // c was drained, and d said goodbye
	see(map[string]string{})
	c.all[0].Uptime = time.Hour
	c.all[1].Status, c.all[1].Reasons, c.all[1].Seen = channels.ReplicaRed, []string{"heartbeats missed"}, 20*time.Second
	see(map[string]string{"b": "no"})
	c.all = append(c.all, up("e", 30*time.Second)) // it had started before b died
	see(map[string]string{"b": "no"})
	c.all = append(c.all, up("f", 10*time.Second))
	see(map[string]string{"b": "f"})
	w.Want(3) // a, e and f run
	c.all = c.all[:3]
	see(map[string]string{"b": "no"})
	w.Want(2)
	see(map[string]string{"b": "yes"})
	w.Want(0)
	c.all = c.all[:1]
	see(map[string]string{"b (gone)": "no"})
	c.all = append(c.all, up("g", time.Second))
	see(map[string]string{"b (gone)": "g"})
	c.all[1].Draining = true
	see(map[string]string{"b (gone)": "no"})

	c.now = c.now.Add(14 * time.Minute)
	see(map[string]string{"b (gone)": "no"})
	c.now = c.now.Add(time.Minute)
	see(map[string]string{})
}

// One that is there again has not died, and of many that have died, the page tells of the
// latest 20.
func TestTheDeadAreBounded(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	for n := range 30 {
		dead := replica(string(rune('b' + n)))
		dead.Status, dead.Seen = channels.ReplicaRed, 11*time.Second
		c.all = append(c.all[:1], dead)
		c.second(w, 1)
	}
	fates := w.Fates()
	require.Len(t, fates, 21, "with the one that is still listed")
	require.Contains(t, fates, string(rune('b'+28))+" (gone)")
	require.NotContains(t, fates, "b (gone)")
	c.all = append(c.all[:1], replica(string(rune('b'+28))))
	c.second(w, 1)
	require.NotContains(t, w.Fates(), string(rune('b'+28))+" (gone)")
}

// A Store that takes nothing is not slow, and the page says for how long.
func TestTheStoresWords(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b")}}
	w := c.watch()
	is := func(want string, change func(a, b *channels.Replica)) {
		t.Helper()
		for i := range c.all {
			c.all[i] = replica(c.all[i].ID)
		}
		change(&c.all[0], &c.all[1])
		c.second(w, 1)
		require.Equal(t, want, w.Store())
	}
	late := []string{"canary late: store"}
	is("green: It takes what it is given.", func(a, b *channels.Replica) { b.StoreSeen, a.Seen = 2*time.Second, 2*time.Second })
	is("yellow: It is slow for b.", func(_, b *channels.Replica) { b.Status, b.Reasons = channels.ReplicaYellow, late })
	is("yellow: It has taken nothing from a, b for 5 s.", func(a, b *channels.Replica) {
		a.Status, a.Reasons, a.StoreSeen = channels.ReplicaYellow, late, 3*time.Second
		b.Status, b.Reasons, b.StoreSeen, b.Seen = channels.ReplicaYellow, late, 4*time.Second, time.Second
	})
	is("red: It has taken nothing from a for 11 s.", func(a, b *channels.Replica) {
		a.Status, a.Reasons, a.StoreSeen = channels.ReplicaRed, []string{"reports lost: store"}, 11*time.Second
		b.StoreSeen, b.Seen = 20*time.Second, 20*time.Second // nothing is heard of it, for another reason
	})
	is("red: It takes no messages from b.", func(_, b *channels.Replica) {
		b.Status, b.Reasons = channels.ReplicaRed, []string{"canary lost: store"}
	})
}

// While the Store fails, replicas are red, but their clients are still there.
func TestPointsWhileTheStoreFails(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b")}}
	w := c.watch()
	c.second(w, 10)
	for i := range c.all {
		c.all[i].Status, c.all[i].Reasons = channels.ReplicaRed, []string{"reports lost: store"}
	}
	c.second(w, 10)
	require.Equal(t, []admin.Point{{1_000_002, 2, 0, 14, 40, 20, 60}}, w.Since(1_000_001))
}

// After a look that fails, the next one knows the rates, over the time since the last
// that did not.
func TestRatesAfterAFailedLook(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	c.second(w, 10)
	all := c.all
	c.all, c.err = nil, errors.New("no answer")
	c.second(w, 0)
	c.all, c.err = all, nil
	c.second(w, 10)
	require.Equal(t, []admin.Point{{1_000_003, 1, 1, 7, 10, 5, 15}}, w.Since(1_000_001))
}

// A look that panics, since the app's Store does, is one that fails: whoever shares it
// gets an error, and the next one looks again.
func TestALookThatPanics(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	asked, end, panics := make(chan bool), make(chan bool), true
	w := admin.NewWatch(time.Now, func() ([]channels.Replica, error) {
		if panics {
			panics = false
			asked <- true
			<-end
			panic("of the Store")
		}
		return c.all, nil
	})
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		w.Sample()
	}()
	<-asked
	shared := make(chan error)
	go func() { shared <- w.Err() }()
	close(end)
	require.Equal(t, "of the Store", <-ended)
	if err := <-shared; err != nil { // it may also have come later
		require.ErrorIs(t, err, channels.ErrInternal)
	}
	require.NoError(t, w.Err())
}

// The Store and the mesh tell of the same process, one more exactly than the other, and
// one later.
func TestRatesFromTheStoreAndTheMesh(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	c.second(w, 100)
	c.all[0].Started = time.Unix(5, 999_999) // by the mesh
	c.second(w, 100)
	require.Equal(t, 100.0, w.Since(c.now.Unix() - 1)[0].Publishes)
	c.all[0].Started, c.all[0].Seen = time.Unix(5, 0), 2*time.Second
	c.second(w, -200) // the Store's is older
	require.Equal(t, 100.0, w.Since(c.now.Unix() - 1)[0].Publishes)
}

// A heartbeat that was long on its way changes no rate.
func TestRatesOfSlowHeartbeats(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	for i, seen := range []time.Duration{0, 700 * time.Millisecond, 0, 350 * time.Millisecond, 0} {
		c.all[0].Uptime, c.all[0].Seen = time.Duration(i+1)*time.Second, seen
		c.second(w, 100)
		if i > 0 {
			require.Equal(t, 100.0, w.Since(c.now.Unix() - 1)[0].Publishes)
		}
	}
}

// Rates are over the time between heartbeats: a heartbeat that comes late is no peak.
func TestRatesOfUnevenHeartbeats(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	rate := func() float64 { return w.Since(c.now.Unix() - 1)[0].Publishes }
	c.second(w, 100)
	c.all[0].Seen = 500 * time.Millisecond
	c.second(w, 50) // in the half second from heartbeat to heartbeat
	require.Equal(t, 100.0, rate())
	c.all[0].Seen = 1500 * time.Millisecond
	c.second(w, 0) // no new heartbeat
	require.Equal(t, 100.0, rate())
	c.all[0].Seen = 0
	c.second(w, 250)
	require.Equal(t, 100.0, rate())
}

// Over 30 minutes, neither the points nor what is remembered of replicas grows.
func TestPointsAreBounded(t *testing.T) {
	c := &cluster{}
	w := c.watch()
	simulate := func(minutes int) {
		for i := range minutes * 60 {
			c.all = c.all[:0]
			for n := range 16 { // of which one is new each second
				c.all = append(c.all, replica(strings.Repeat("x", 1+(i+n)%64)))
			}
			c.second(w, 1)
		}
	}
	simulate(15)
	require.Len(t, w.Since(0), 900)
	before := basetest.Heap()
	simulate(30)
	all := w.Since(0)
	require.Len(t, all, 900)
	require.Equal(t, c.now.Unix(), all[899].Second)
	require.Equal(t, c.now.Unix()-899, all[0].Second)
	require.Equal(t, 16, w.Tallies())
	require.Less(t, basetest.Heap()-before, int64(64<<10))
}

// A clock that is set back leaves no points of the future.
func TestPointsOfAClockThatIsSetBack(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a")}}
	w := c.watch()
	for range 10 {
		c.second(w, 1)
	}
	c.now = c.now.Add(-6 * time.Second)
	w = w.Forget()
	c.second(w, 1)
	all := w.Since(0)
	require.Len(t, all, 5)
	require.Equal(t, c.now.Unix(), all[4].Second)
}

// The page asks again as soon as a silent replica counts as dead.
func TestWhenToAskAgain(t *testing.T) {
	c := &cluster{all: []channels.Replica{replica("a"), replica("b")}}
	w := c.watch()
	require.Equal(t, 700*time.Millisecond, w.Again())
	c.all[1].Seen = 9700 * time.Millisecond
	c.now = c.now.Add(time.Second)
	require.Equal(t, 305*time.Millisecond, w.Again())
	c.all[1].Seen = 12 * time.Second
	c.now = c.now.Add(time.Second)
	require.Equal(t, 700*time.Millisecond, w.Again())
}

// Each reason that a replica can give is explained, and no other.
func TestEveryReasonHasWords(t *testing.T) {
	b, err := os.ReadFile("../replica_verdict.go")
	require.NoError(t, err)
	want := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:\breason\w+ +=|\bwarn\(.*,) "([\w ]+)(: )?`).FindAllStringSubmatch(string(b), -1) {
		switch {
		case m[2] == "":
			want[m[1]] = true
		case strings.HasPrefix(m[1], "report"): // only to the Store
			want[m[1]+": store"] = true
		default:
			want[m[1]+": store"], want[m[1]+": mesh"] = true, true
		}
	}
	require.Len(t, want, 16)
	want["silent"] = true // the page's own, which it also says for this one:
	delete(want, "heartbeat late")
	for reason, advice := range admin.Reasons() {
		require.True(t, want[reason], reason)
		require.Greater(t, len(advice[0]), 30, reason)
		require.Greater(t, len(advice[1]), 20, reason)
		delete(want, reason)
	}
	require.Empty(t, want)
}
