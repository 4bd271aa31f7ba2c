package meshtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var lifeCases = []Case{
	{Name: "Status", Check: status,
		Explain: "Status lists the peers, or the broker, by id, and reports that they are up. Without a fault it counts nothing."},
	{Name: "ReceiveEndsWithItsContext", Check: receiveEndsWithItsContext,
		Explain: "Receive returns its context's error when the context ends. It then no longer calls deliver, and may be called again."},
	{Name: "Close", Check: closes,
		Explain: "Close ends Receive. After it, every method returns ErrClosed, and a second Close returns nil."},
	{Name: "CloseSendsWhatIsQueued", Check: closeSendsWhatIsQueued,
		Explain: "Packets published before Close arrive at peers that accept them. Close may give up after a few seconds, but not within one."},
	{Name: "AllAtOnce", Check: allAtOnce, alone: true,
		Explain: "All methods may be called concurrently, even during Close."},
}

func status(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	for _, n := range m {
		eventually(t, "Status reports that the peers are up", func() bool {
			s := n.Status()
			up := func(p mesh.Peer) bool { return p.Up && !p.Since.IsZero() && p.Err == "" }
			return s.Err == nil && len(s.Peers) > 0 && !slices.ContainsFunc(s.Peers, func(p mesh.Peer) bool { return !up(p) })
		})
		s := n.Status()
		require.Zero(t, s.Dropped)
		require.Zero(t, s.Refused)
		require.True(t, slices.IsSortedFunc(s.Peers, func(a, b mesh.Peer) int { return strings.Compare(a.ID, b.ID) }))
		for _, p := range s.Peers {
			require.NotEqual(t, n.id, p.ID, "it is its own peer")
		}
	}
}

func receiveEndsWithItsContext(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	m[1].subscribeTo(t, m[0], "x")
	s := startStream(t, m[0], "x")
	m[1].pause()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var over, late atomic.Bool
		var n atomic.Int64
		go func() { // ends with ctx
			err := m[1].Receive(ctx, func(mesh.Packet) {
				n.Add(1)
				late.Store(late.Load() || over.Load())
			})
			over.Store(true)
			ended <- err
		}()
		eventually(t, "packets arrive", func() bool { return n.Load() > 20 })
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		s.More(t, 50)
		require.False(t, late.Load(), "deliver was called after Receive had returned")
	}
	m[1].receive()
	v := watch(t, m[1], s)
	v.AwaitLive(t)
	s.More(t, 100)
	v.RequireAll(t)
}

func closes(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	b.pause()
	ended := make(chan error, 1)
	go func() { ended <- b.Receive(context.Background(), func(mesh.Packet) {}) }() // ends with Close
	b.subscribe(t, "x")
	require.NoError(t, b.Close())
	require.ErrorIs(t, <-ended, mesh.ErrClosed)
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Publish(context.Background(), mesh.Packet{Channel: "x"}), mesh.ErrClosed)
	require.ErrorIs(t, b.Publish(context.Background(), mesh.Packet{}), mesh.ErrClosed)
	require.ErrorIs(t, b.Publish(context.Background(), mesh.Packet{To: "n0"}), mesh.ErrClosed)
	require.ErrorIs(t, b.Subscribe("y"), mesh.ErrClosed)
	require.ErrorIs(t, b.Unsubscribe("x"), mesh.ErrClosed)
	require.ErrorIs(t, b.SubscribePrefix("y"), mesh.ErrClosed)
	require.ErrorIs(t, b.UnsubscribePrefix("x"), mesh.ErrClosed)
	require.ErrorIs(t, b.Receive(context.Background(), func(mesh.Packet) {}), mesh.ErrClosed)
	_ = b.Status()
	for i := range 100 { // the remaining replica goes on
		a.say(t, "x", i)
		a.say(t, "", i)
	}
	require.Zero(t, a.total())
}

func closeSendsWhatIsQueued(t *testing.T, f Fabric) {
	const n = 2000
	a := join(t, f, "n0")
	for life, whole := 0, 0; whole < 3; life++ {
		require.Less(t, life, 30, "Close takes more than a second again and again")
		b := join(t, f, "n1")
		ch := fmt.Sprint("x", life)
		a.subscribeTo(t, b, ch)
		for i := 1; i <= n; i++ {
			b.say(t, ch, i)
		}
		began := time.Now()
		b.close(t)
		if time.Since(began) < time.Second { // on a busy machine, it may take longer and give up
			a.requireNumbers(t, ch, n)
			whole++
		}
	}
}

// allAtOncePace is how long each caller of allAtOnce rests between its rounds.
const allAtOncePace = 2 * time.Millisecond

func allAtOnce(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	var all sync.WaitGroup
	ok := func(err error) {
		if err != nil && !errors.Is(err, mesh.ErrClosed) {
			assert.NoError(t, err)
		}
	}
	gone := make(chan struct{})
	for g := range 20 {
		n := m[g%2]
		all.Go(func() { // ends when its replica is closed
			for i := 0; ; i++ {
				ch := fmt.Sprint("c", (g+i)%7)
				ok(n.Subscribe(ch))
				ok(n.Publish(context.Background(), mesh.Packet{Channel: ch, Header: "h", Body: []byte(`{"x":1}`)}))
				ok(n.Publish(context.Background(), mesh.Packet{To: "n2", Header: "h"}))
				_ = n.Status()
				if g < 4 {
					ok(n.Unsubscribe(ch))
					ok(n.Publish(context.Background(), mesh.Packet{Header: "h"}))
				}
				select {
				case <-gone:
					if errors.Is(n.Subscribe(ch), mesh.ErrClosed) {
						return
					}
				default:
				}
				// Twenty that never rest would keep the mesh's own goroutines from
				// the processor, and with them the other tests.
				time.Sleep(allAtOncePace)
			}
		})
	}
	eventually(t, "many packets arrive", func() bool {
		return m[0].total() > 500 && m[1].total() > 500 && m[2].total() > 500
	})
	close(gone)
	for i := range 6 { // each at least twice at the same time
		all.Go(func() { ok(m[i%2].Close()) })
	}
	all.Wait()
	m[2].subscribe(t, "x")
	late := join(t, f, "late")
	m[2].awaitFrom(t, late, "x")
}
