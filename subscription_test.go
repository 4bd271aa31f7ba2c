package channels_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// reading is a Go subscription that is read in loops, which end in different ways.
type reading struct {
	t   *testing.T
	sub *channels.Subscription
	got []int
}

// loop reads, calls body with each message's number, and recovers its panic.
// It returns the error with which the messages ended, if they did.
func (r *reading) loop(body func(n int) (goOn bool)) (err error) {
	defer func() { recover() }()
	for m, e := range r.sub.Messages() {
		if e != nil {
			err = e
			continue
		}
		var n int
		fmt.Sscanf(string(m.Body), `"%d `, &n)
		r.got = append(r.got, n)
		if !body(n) {
			break
		}
	}
	return err
}

// number publishes messages with these numbers, of a size.
func number(t *testing.T, hub *channels.Hub, channel string, from, to, size int) {
	t.Helper()
	for n := from; n <= to; n++ {
		body := `"` + strconv.Itoa(n) + " " + long(size) + `"`
		publish(t, hub, channel, "n", body)
	}
}

func seq(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func TestAPanicInALoopLosesNoMessage(t *testing.T) {
	hub := newHub(t, channels.Options{})
	sub := subscription(t, hub, "c", nil)
	number(t, hub, "c", 1, 5, 0)
	r := &reading{t: t, sub: sub}
	r.loop(func(n int) bool { panic("the app's") })
	require.Equal(t, seq(1, 1), r.got)
	r.loop(func(n int) bool { return n != 3 })
	r.loop(func(n int) bool { return n != 5 })
	require.Equal(t, seq(1, 5), r.got)
}

func TestNoMessageComesAfterClose(t *testing.T) {
	hub := newHub(t, channels.Options{})
	sub := subscription(t, hub, "c", nil)
	number(t, hub, "c", 1, 5, 0)
	r := &reading{t: t, sub: sub}
	require.NoError(t, r.loop(func(int) bool { sub.Close(); return true }))
	require.Equal(t, seq(1, 1), r.got)
	require.NoError(t, r.loop(func(int) bool { return true }))
	require.Equal(t, seq(1, 1), r.got)
}

// However a subscription ends, the bytes that waited for it no longer count. Otherwise
// new clients would be refused once they add up to MaxQueuedBytes.
func TestQueuedBytesComeBack(t *testing.T) {
	for name, leave := range map[string]func(r *reading, hub *channels.Hub, cancel func()){
		"close":  func(r *reading, _ *channels.Hub, _ func()) { r.sub.Close() },
		"cancel": func(_ *reading, _ *channels.Hub, cancel func()) { cancel() },
		"cancel, break, close": func(r *reading, _ *channels.Hub, cancel func()) {
			r.loop(func(int) bool { cancel(); synctest.Wait(); return false })
			r.sub.Close()
		},
		"close, break": func(r *reading, _ *channels.Hub, _ func()) { r.loop(func(int) bool { r.sub.Close(); return false }) },
		"close, panic": func(r *reading, _ *channels.Hub, _ func()) {
			r.loop(func(int) bool { r.sub.Close(); panic("the app's") })
		},
		"break, close": func(r *reading, _ *channels.Hub, _ func()) { r.loop(func(int) bool { return false }); r.sub.Close() },
		"panic, cancel": func(r *reading, _ *channels.Hub, cancel func()) {
			r.loop(func(int) bool { panic("the app's") })
			cancel()
		},
		"disconnect, break": func(r *reading, hub *channels.Hub, _ func()) {
			r.loop(func(int) bool { disconnect(hub, r.sub.ID()); return false })
			r.sub.Close()
		},
		"disconnect, read": func(r *reading, hub *channels.Hub, _ func()) {
			disconnect(hub, r.sub.ID())
			r.loop(func(int) bool { return true })
		},
		"shutdown, left alone": func(_ *reading, hub *channels.Hub, _ func()) { hub.Shutdown(context.Background()) },
		"shutdown, break": func(r *reading, hub *channels.Hub, _ func()) {
			r.loop(func(int) bool { hub.Shutdown(context.Background()); return false })
		},
		"shutdown, read, close": func(r *reading, hub *channels.Hub, _ func()) {
			hub.Shutdown(context.Background())
			r.loop(func(int) bool { return true })
			r.sub.Close()
		},
		"too slow, close": func(r *reading, hub *channels.Hub, _ func()) { number(r.t, hub, "c", 6, 100, 8<<10); r.sub.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := newHub(t, channels.Options{QueueBytes: 128 << 10, MaxMessageBytes: 16 << 10})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				sub, err := hub.Subscribe(ctx, "c", nil)
				require.NoError(t, err)
				number(t, hub, "c", 1, 5, 8<<10)
				require.NotZero(t, hub.Stats().Queued)
				leave(&reading{t: t, sub: sub}, hub, cancel)
				synctest.Wait()
				require.Zero(t, hub.Stats().Queued)
				require.Zero(t, hub.Stats().Connections)
				sub.Close()
				require.Zero(t, hub.Stats().Queued)
			})
		})
	}
}

// Random readers of a channel with history break, panic, are too slow, cancel,
// close, are disconnected, and come again from Position, until the hub is shut
// down: nothing is lost, nothing comes twice, nothing stays queued.
func TestRandomReadersLoseNothing(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomReader(t, rand.New(rand.NewPCG(seed, 7))) })
		})
		if t.Failed() {
			return
		}
	}
}

func randomReader(t *testing.T, rnd *rand.Rand) {
	hub := newHub(t, channels.Options{QueueBytes: 32 << 10, MaxMessageBytes: 16 << 10, Channel: keep(10_000)})
	said := 0
	publish := func() {
		k := rnd.IntN(12)
		number(t, hub, "c", said+1, said+k, rnd.IntN(8<<10))
		said += k
	}
	if rnd.IntN(2) == 0 { // it begins in a log, or before it
		number(t, hub, "c", 0, 0, 10)
	}
	r := &reading{t: t}
	var cancel context.CancelFunc
	var from *channels.Position
	come := func() {
		var ctx context.Context
		ctx, cancel = context.WithCancel(context.Background())
		var err error
		r.sub, err = hub.Subscribe(ctx, "c", from)
		require.NoError(t, err)
	}
	come()
	goneOn := func() { // the subscription has ended
		from = r.sub.Position()
		r.sub.Close()
		cancel()
		come()
	}
	var trail []string
	for range 30 {
		op := rnd.IntN(8)
		trail = append(trail, strconv.Itoa(op))
		switch op {
		case 0, 1, 2:
			publish()
		case 3, 4: // read some, and leave the loop in one of the ways
			publish()
			k, way := rnd.IntN(8), rnd.IntN(3)
			stop := time.AfterFunc(time.Second, cancel) // where it waits for more than there is
			err := r.loop(func(int) bool {
				if k--; k > 0 {
					return true
				}
				if way == 0 {
					panic("the app's")
				}
				return false
			})
			if !stop.Stop() || err != nil {
				goneOn()
			}
		case 5:
			cancel()
			synctest.Wait()
			goneOn()
		case 6:
			disconnect(hub, r.sub.ID())
			if rnd.IntN(2) == 0 {
				require.Error(t, r.loop(func(int) bool { return true }))
			}
			goneOn()
		case 7:
			publish()
			stop := time.AfterFunc(time.Second, cancel)
			r.loop(func(int) bool { r.sub.Close(); return true })
			stop.Stop()
			goneOn()
		}
	}
	for range 3 { // the last one may have been too slow meanwhile
		if said == 0 || len(r.got) > 0 && r.got[len(r.got)-1] == said {
			break
		}
		stop := time.AfterFunc(time.Minute, cancel)
		err := r.loop(func(n int) bool { return n < said })
		require.True(t, stop.Stop(), "something is missing after %v: %v", r.got, trail)
		if err != nil {
			require.ErrorIs(t, err, channels.ErrSlowSubscriber)
			goneOn()
		}
	}
	require.Equal(t, seq(1, said), append([]int(nil), r.got...), "%v", trail)
	if rnd.IntN(2) == 0 {
		publish()
		require.NoError(t, hub.Shutdown(context.Background()))
	}
	r.sub.Close()
	cancel()
	synctest.Wait()
	require.Zero(t, hub.Stats().Queued)
}

// A subscription goes on from its Position, even if it has yielded nothing yet; in a
// channel without history it has none.
func TestPositionOfASubscription(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keeps})
	plain := subscription(t, hub, "a", nil)
	number(t, hub, "a", 1, 1, 0)
	(&reading{t: t, sub: plain}).loop(func(int) bool { return false })
	require.Nil(t, plain.Position())

	unborn := subscription(t, hub, "h", nil)
	require.Equal(t, &channels.Position{}, unborn.Position())
	number(t, hub, "h", 1, 3, 0)
	sub := subscription(t, hub, "h", nil)
	require.EqualValues(t, 3, sub.Position().Offset)
	number(t, hub, "h", 4, 5, 0)
	r := &reading{t: t, sub: sub}
	r.loop(func(int) bool { return false })
	require.EqualValues(t, 4, sub.Position().Offset)
	from := sub.Position()
	from.Offset = 1 // it is the caller's own
	require.EqualValues(t, 4, sub.Position().Offset)
	again, err := channels.Of[string](hub, "h").Subscribe(t.Context(), from)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, from, again.Position())
}

func TestMessagesAfterTheEnd(t *testing.T) {
	hub := newHub(t, channels.Options{})
	s := subscription(t, hub, "c", nil)
	disconnect(hub, s.ID())
	for _, err := range s.Messages() {
		require.ErrorIs(t, err, channels.ErrDisconnected)
	}
	require.Zero(t, hub.Stats().Connections, "who has read the end is no subscriber")
	for range s.Messages() {
		t.Error("there is nothing after the end")
	}
}

// If its context ends while Subscribe runs, nothing of the subscription is left.
func TestSubscribeWhileItsContextEnds(t *testing.T) {
	s := serve(t, channels.Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				sub, err := s.hub.Subscribe(ctx, "a", nil)
				if err == nil {
					for range sub.Messages() {
					}
					sub.Close()
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
	cnt, _ := s.numbers("a")
	require.Zero(t, cnt)
}
