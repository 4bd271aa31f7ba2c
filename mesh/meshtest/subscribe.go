package meshtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/streamtest"
)

var subscribeCases = []Case{
	{Name: "Repeated", Check: repeated,
		Explain: "Subscribe and Unsubscribe may be repeated. One Unsubscribe ends any number of Subscribes. After it, packets stop coming."},
	{Name: "BackAndForth", Check: backAndForth,
		Explain: "The last call counts, however fast a channel is subscribed to and left."},
	{Name: "ManyChannels", Check: manyChannels,
		Explain: "A replica may subscribe to 10,000 channels, and leave them."},
	{Name: "LateSubscriber", Check: lateSubscriber,
		Explain: "A replica that subscribes while packets flow gets all packets published after the KindLost that reports the active subscription. Without a KindLost, the subscription was active at once."},
	{Name: "LatePeer", Check: latePeer,
		Explain: "A subscription also covers peers that come later. A replica that joins late can subscribe and publish."},
}

func repeated(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	for range 3 {
		require.NoError(t, m[1].Unsubscribe("never subscribed"))
		m[1].subscribe(t, "x", "x", "y", "x")
	}
	m[1].awaitFrom(t, m[0], "x", "y")
	for i := 1; i <= 10; i++ {
		m[0].say(t, "x", i)
	}
	m[1].requireNumbers(t, "x", 10)

	require.NoError(t, m[1].Unsubscribe("x"))
	requireStopped(t, m[0], m[1], "x", "y")
	require.NoError(t, m[1].Unsubscribe("x"))

	m[1].subscribe(t, "x")
	now := len(m[1].all("x"))
	eventually(t, "packets come again", func() bool {
		m[0].say(t, "x", 1)
		return len(m[1].all("x")) > now
	})
}

// requireStopped waits until packets on one channel no longer arrive while
// packets on another still do.
func requireStopped(t *testing.T, from, to *member, silent, lively string) {
	t.Helper()
	calm := 0
	eventually(t, fmt.Sprintf("packets on %q stop coming", silent), func() bool {
		before, goal := len(to.all(silent)), len(to.all(lively))+5
		for i := range 5 {
			from.say(t, silent, i)
			from.say(t, lively, i)
		}
		to.awaitNumber(t, lively, goal)
		if calm++; len(to.all(silent)) > before {
			calm = 0
		}
		return calm == 10
	})
}

func backAndForth(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	m[1].subscribeTo(t, m[0], "lively")
	for i := range 500 {
		ch := fmt.Sprint("c", i%2)
		m[1].subscribe(t, ch)
		require.NoError(t, m[1].Unsubscribe(ch))
	}
	m[1].subscribeTo(t, m[0], "c0")
	m[0].say(t, "c0", 1)
	m[1].requireNumbers(t, "c0", 1)
	requireStopped(t, m[0], m[1], "c1", "lively")
}

func manyChannels(t *testing.T, f Fabric) {
	const n, window = 10_000, 500
	m := joinAll(t, f, 2)
	name := func(i int) string { return fmt.Sprint("channel-", i) }
	for i := range n {
		require.NoError(t, m[1].Subscribe(name(i)))
	}
	// The subscriptions need not become active in the order of the calls.
	for i := 0; i < n; {
		missing := 0
		for k := i; k < min(i+window, n); k++ {
			if !m[1].probed(m[0].id, name(k)) {
				_ = m[0].Publish(context.Background(), mesh.Packet{Channel: name(k), Header: ready})
				missing++
			}
		}
		if missing == 0 {
			i += window
			continue
		}
		for deadline := time.Now().Add(200 * time.Millisecond); !m[1].probed(m[0].id, name(min(i+window, n)-1)) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // between two looks
		}
	}
	for i := range n {
		m[0].say(t, name(i), i)
		if i%window == window-1 {
			eventually(t, "packets arrive", func() bool { return m[1].heard("n0") >= i-window })
		}
	}
	eventually(t, "one packet arrives on each channel", func() bool { return m[1].heard("n0") >= n })
	for i := range n {
		if got := headers(m[1].all(name(i))); len(got) != 1 || got[0] != fmt.Sprint(i) { // an assertion for each would take long
			require.Equal(t, []string{fmt.Sprint(i)}, got)
		}
	}
	for i := 1; i < n; i++ {
		require.NoError(t, m[1].Unsubscribe(name(i)))
	}
	requireStopped(t, m[0], m[1], name(n-1), name(0))
}

func lateSubscriber(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	a, b := startStream(t, m[0], "x"), startStream(t, m[1], "x")
	a.More(t, 50)
	views := []*streamtest.View{watch(t, m[2], a), watch(t, m[2], b)}
	late := join(t, f, "late")
	views = append(views, watch(t, late, a), watch(t, late, b))
	for _, v := range views {
		v.AwaitLive(t)
	}
	a.More(t, 200)
	for _, v := range views {
		v.RequireAll(t)
	}
}

func latePeer(t *testing.T, f Fabric) {
	a := join(t, f, "n0")
	a.subscribe(t, "x")
	b := join(t, f, "n1")
	a.awaitFrom(t, b, "", "x")
	b.subscribe(t, "x")
	b.awaitFrom(t, a, "", "x")
	for i := 1; i <= 100; i++ {
		a.say(t, "x", i)
		b.say(t, "x", i)
	}
	a.requireNumbers(t, "x", 100)
	b.requireNumbers(t, "x", 100)
}
