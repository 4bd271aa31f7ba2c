package meshtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/streamtest"
)

var faultCases = []Case{
	{Name: "CutLink", Check: cutLink,
		Explain: "After a cut, a KindLost reports the loss once the link is back. All packets published after it arrive. Other links are not affected."},
	{Name: "Reopened", Check: reopened,
		Explain: "A replica that was closed and returns under the same id is a peer as before, in both directions."},
	{Name: "LinkThatNeverComesBack", Check: linkThatNeverComesBack,
		Explain: "The loss by a cut link is reported soon even if the link never comes back because the peer has left: by a KindLost, or by Status.Err if this replica is cut off from all."},
	{Name: "SlowButSteadyReceiver", Check: slowButSteadyReceiver,
		Explain: "A replica that is slow but steadily takes packets loses nothing that the queues can hold, and its link stays up."},
	{Name: "SlowReceiver", Check: slowReceiver, alone: true,
		Explain: "A replica whose deliver hangs delays no other. The data that waits for it is bounded. When it goes on, a KindLost reports the loss."},
}

func cutLink(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	ab, ba := startStream(t, m[0], "x"), startStream(t, m[1], "x")
	ac, ca := startStream(t, m[0], "other"), startStream(t, m[2], "x")
	cut := []*streamtest.View{watch(t, m[1], ab), watch(t, m[0], ba)}
	whole := []*streamtest.View{watch(t, m[2], ac), watch(t, m[0], ca)}
	all := slices.Concat(cut, whole)
	for _, v := range all {
		v.AwaitLive(t)
	}
	for range 3 {
		before := m[1].Status().Lost
		f.Cut(m[0].id, m[1].id)
		ab.More(t, 300)
		for _, v := range whole {
			v.AwaitLive(t)
		}
		f.Heal()
		eventually(t, "the replica that was cut off gets a KindLost", func() bool { return m[1].Status().Lost > before })
		for _, v := range all {
			v.AwaitLive(t)
		}
	}
	for _, v := range all {
		v.RequireAll(t)
	}
}

func linkThatNeverComesBack(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	s := startStream(t, m[0], "x")
	v := watch(t, m[1], s)
	v.AwaitLive(t)
	before := m[1].Status().Lost
	f.Cut(m[0].id, m[1].id)
	s.More(t, 50)
	s.Stop()
	m[0].close(t)
	eventually(t, "the remaining replica gets a KindLost or a Status.Err", func() bool {
		status := m[1].Status()
		return status.Lost > before || status.Err != nil
	})
}

// The bodies are more than the operating systems on both sides buffer, so most
// of them wait, but fewer than the queues hold. The pace is so slow that
// progress is visible only after a long time.
const (
	steadyBodies = 500 // 15 MiB; a lane of redismesh on a Cluster holds 16 MiB
	steadyBody   = 30 << 10
	steadySlow   = 60 // bodies taken at the pace; the others are taken at once
	steadyPace   = 200 * time.Millisecond
)

func slowButSteadyReceiver(t *testing.T, f Fabric) {
	// On a busy machine, the receiver itself may not be steady. Then it is tried
	// again.
	for attempt := 1; ; attempt++ {
		longest, whole := receiveSteadily(t, f)
		if whole {
			return
		}
		require.Greater(t, longest, time.Second, "a link was cut, or packets were dropped")
		require.Less(t, attempt, 3, "the receiver took nothing for %v, and in each attempt before for so long", longest)
		t.Logf("again: a link was cut, or packets were dropped, but the receiver took nothing for %v", longest)
	}
}

// receiveSteadily reports whether everything has arrived over the links that were
// there before, and the longest time in which the receiver took nothing.
func receiveSteadily(t *testing.T, f Fabric) (longest time.Duration, whole bool) {
	var mu sync.Mutex // guards the results and the variables below
	taken, last := 0, time.Time{}
	a := join(t, f, "n0")
	defer a.close(t)
	b := joinWith(t, f, "n1", func(p mesh.Packet) {
		if p.Channel != big || p.Kind == mesh.KindLost || p.Header == ready {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if taken++; taken <= steadySlow {
			time.Sleep(steadyPace)
		}
		longest, last = max(longest, time.Since(last)), time.Now()
	})
	defer b.close(t)
	link(t, a, b)
	b.subscribeTo(t, a, big)
	var before []time.Time // when the links came up
	eventually(t, "all links are up", func() bool {
		before = append(upSince(a), upSince(b)...)
		return len(before) == len(a.Status().Peers)+len(b.Status().Peers)
	})
	mu.Lock()
	last = time.Now()
	mu.Unlock()
	body := json.RawMessage(`"` + strings.Repeat("b", steadyBody) + `"`)
	for i := 1; i <= steadyBodies; i++ {
		a.send(t, mesh.Packet{Channel: big, Header: fmt.Sprint(i), Body: body})
	}
	steady := true
	eventually(t, "all bodies arrive, or a link was cut", func() bool {
		steady = a.Status().Dropped == 0 && slices.Equal(before, append(upSince(a), upSince(b)...))
		return !steady || len(b.all(big)) >= steadyBodies
	})
	if steady {
		b.requireNumbers(t, big, steadyBodies)
	}
	mu.Lock()
	defer mu.Unlock()
	return max(longest, time.Since(last)), steady
}

// upSince returns since when those links are up that are.
func upSince(m *member) (all []time.Time) {
	for _, p := range m.Status().Peers {
		if p.Up {
			all = append(all, p.Since)
		}
	}
	return all
}

func reopened(t *testing.T, f Fabric) {
	a, b := join(t, f, "n0"), join(t, f, "n1")
	link(t, a, b)
	for life := range 4 {
		x, y := fmt.Sprint("x", life), fmt.Sprint("y", life)
		a.subscribe(t, x)
		b.subscribe(t, y)
		a.awaitFrom(t, b, x)
		b.awaitFrom(t, a, y)
		for i := 1; i <= 50; i++ {
			b.say(t, x, i)
			a.say(t, y, i)
		}
		a.requireNumbers(t, x, 50)
		b.requireNumbers(t, y, 50)
		b.close(t)
		b = join(t, f, "n1")
	}
}

// All bodies together have more bytes than slowBound, so a mesh that keeps all
// that a slow replica has not taken exceeds it. Queues of some ten MiB are below
// it. More bodies would show no more, and cost the race detector seconds.
const (
	slowBodies = 1280
	slowBody   = 64 << 10
	slowBound  = 64 << 20
)

func slowReceiver(t *testing.T, f Fabric) {
	gate := make(chan struct{})
	var stuck, open atomic.Bool
	a, c := join(t, f, "n0"), join(t, f, "n2")
	b := joinWith(t, f, "n1", func(p mesh.Packet) {
		if p.Header == "stick" && !open.Load() {
			stuck.Store(true)
			<-gate
		}
	})
	defer func() {
		if open.CompareAndSwap(false, true) {
			close(gate)
		}
	}()
	link(t, a, b, c)
	subscribeAll(t, []*member{a, b, c}, []string{"x", "stick"})
	a.send(t, mesh.Packet{Channel: "stick", Header: "stick"})
	eventually(t, "the receiver hangs", stuck.Load)

	base := basetest.Heap()
	body := json.RawMessage(`"` + strings.Repeat("b", slowBody) + `"`)
	taken := func() int { return len(c.all(big)) }
	c.subscribe(t, big)
	b.subscribe(t, big)
	c.awaitFrom(t, a, big)
	for i := 1; i <= slowBodies; i++ {
		a.send(t, mesh.Packet{Channel: big, Header: fmt.Sprint(i), Body: body})
		if i%64 == 0 {
			eventually(t, "the healthy replica gets all, and soon", func() bool { return taken() >= i-64 })
		}
	}
	eventually(t, "the healthy replica gets all", func() bool { return taken() == slowBodies })
	require.Less(t, basetest.Heap()-base, int64(slowBound), "the data kept for a slow receiver has no bound")
	require.Equal(t, numbers(1, slowBodies), headers(c.all(big)))

	s := startStream(t, a, "x")
	v := watch(t, b, s)
	open.Store(true)
	close(gate)
	v.AwaitLive(t)
	v.RequireAll(t)
	if n := len(b.all(big)); n < slowBodies {
		require.Positive(t, b.Status().Lost, "it lost %d packets without a KindLost", slowBodies-n)
	}
}
