package channels_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// These tests are single cases of docs/positions.md; TestModel tries the rest.

// drop has the network lose what f publishes, without telling of it.
func (r *replicas) drop(f func()) {
	r.net.SetFaults(meshtest.Faults{Drop: 1})
	f()
	r.net.SetFaults(meshtest.Faults{})
}

// story is what a subscriber got, as text: offsets, and "reset@offset".
func (s *subscriber) story() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, " ")
}

func offsets(first, last int) string { return strings.Trim(fmt.Sprint(seq(first, last)), "[]") }

// A client resumes on a replica that lags behind it. It misses none of the messages that
// the replica has not got yet.
func TestAClientThatIsAheadOfALaggingReplica(t *testing.T) {
	for name, c := range map[string]struct {
		options     func(string) channels.ChannelOptions
		begin       func(r *replicas) // what the replica has got
		first, last int               // of what it has not
		since       int
		want, live  string
	}{
		"in a log that has gone on": {keep(10), func(r *replicas) { r.publishAll(0, "c", 1, 5) }, 6, 30, 28,
			offsets(29, 30), offsets(1, 5) + " trimmed@20 " + offsets(21, 30)},
		"in a log that has begun anew": {history, func(r *replicas) {
			r.publishAll(0, "c", 1, 5)
			synctest.Wait()
			r.lose()
		}, 1, 8, 6, offsets(7, 8), offsets(1, 5) + " epoch@0 " + offsets(1, 8)},
		"in a log that was begun after the replica looked for it": {history, func(*replicas) {}, 1, 8, 5,
			offsets(6, 8), offsets(1, 8)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, c.options, func(r *replicas) {
				live := r.subscribe(1, "c", nil)
				c.begin(r)
				synctest.Wait()
				var at []channels.Position
				r.drop(func() { at = r.publishAll(0, "c", c.first, c.last) })
				ahead := r.subscribe(1, "c", &at[c.since])
				settle(10 * time.Second)
				require.Equal(t, c.want, ahead.story())
				require.Equal(t, c.live, live.story())
				r.publish(1, "c", c.last+1)
				synctest.Wait()
				require.Equal(t, offsets(c.since+1, c.last+1), ahead.story())
			})
		})
	}
}

// A publisher may die between the Store and the mesh, or lose the answer. Repeating the
// message with its key delivers it.
func TestARepeatedPublishIsDeliveredAtOnce(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		key, digest := channels.OwnKey(msg("n", "1"), "k")
		_, err := r.store.Append(context.Background(), "c", store.Entry{Header: "n", Body: []byte("1")},
			store.AppendOptions{Size: 10, TTL: time.Hour, Key: key, KeyTTL: time.Hour, Digest: digest})
		require.NoError(t, err)
		for range 3 {
			require.True(t, publishWith(t, r.hubs[1], "c", msg("n", "1"), channels.PublishOptions{Key: "k"}).Duplicate)
		}
		synctest.Wait() // no time has passed
		for _, s := range []*subscriber{a, b} {
			got := s.close()
			wantAll(t, got, 1, 1)
			require.JSONEq(t, "1", string(got[0].Body), "what was stored counts")
		}
	})
}

// Subscribers of a channel share one call of the Store. If that hangs, all of them are
// refused after StoreTimeout; one that gives up earlier does not fail the others.
func TestSubscribersOfAHangingStoreWaitTogether(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		r.store.mutes.Store(true)
		begin := time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		cancelled := make(chan error)
		go func() {
			_, err := r.hubs[0].Subscribe(ctx, "c", nil)
			cancelled <- err
		}()
		synctest.Wait()
		errs := make(chan error)
		for range 20 {
			go func() {
				_, err := r.hubs[0].Subscribe(context.Background(), "c", nil)
				errs <- err
			}()
		}
		time.Sleep(time.Second)
		cancel()
		require.ErrorIs(t, <-cancelled, context.Canceled)
		for range 20 {
			require.ErrorIs(t, <-errs, channels.ErrStoreUnavailable)
		}
		require.Equal(t, 5*time.Second, time.Since(begin))
		require.EqualValues(t, 1, r.store.tops.Load())
		r.store.mutes.Store(false)
		r.subscribe(0, "c", nil).close()
	})
}

// A day without messages does not reset a subscriber: the hub asks for the log, so the
// Store remembers it.
func TestADayOfSilence(t *testing.T) {
	if raceDetector {
		t.Skip("a day has too many timers for the race detector (go.dev/issue/78156); \"make test\" runs this one without it, too")
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, channels.Options{Channel: keep(10)})
		s := subscribe(t, h, "c", nil)
		publish := func() {
			publish(t, h, "c", "n", "1")
			synctest.Wait()
		}
		publish()
		time.Sleep(store.MetaTTL + time.Hour)
		publish()
		require.Equal(t, "1 2", s.story())
	})
}

// A subscriber does not get its own message, but its position moves on all the same,
// also while it is behind the channel or ahead of it.
func TestOnesOwnMessageWhileOneCatchesUp(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		at := r.publishAll(0, "c", 1, 5)
		r.store.lag.Store(int64(50 * time.Millisecond))
		s := r.subscribe(0, "c", &at[3])
		time.Sleep(10 * time.Millisecond) // the page is on its way
		r.publish(0, "c", 6)
		r.publishExcept(s, 7)
		r.publish(0, "c", 8)
		r.publish(0, "c", 9)
		time.Sleep(10 * time.Second)
		r.publish(0, "c", 10)
		synctest.Wait()
		require.Equal(t, "4 5 6 8 9 10", s.story())
	})
}

func TestOnesOwnMessageWhileOneIsAhead(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		live := r.subscribe(0, "c", nil)
		at := r.publishAll(0, "c", 1, 5)
		r.store.addLag.Store(int64(50 * time.Millisecond))
		r.store.appended = true // 6 is stored, and the channel does not know yet
		go r.publish(0, "c", 6)
		time.Sleep(10 * time.Millisecond)
		s := r.subscribe(0, "c", &at[4])
		time.Sleep(time.Second)
		r.store.addLag.Store(0)
		r.publishExcept(s, 7)
		r.publishAll(0, "c", 8, 10)
		synctest.Wait()
		require.Equal(t, "5 6 8 9 10", s.story())
		require.Equal(t, offsets(1, 10), live.story())
	})
}

func (r *replicas) publishExcept(s *subscriber, n int) {
	r.t.Helper()
	publishWith(r.t, r.hubs[0], "c", msg("n", strconv.Itoa(n)), channels.PublishOptions{Except: s.sub.ID()})
}

// A log is lost, and begins anew while the channel reads it.
func TestALogThatIsBornWhileTheChannelLooks(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(0, "c", nil)
		r.publishAll(1, "c", 1, 5)
		synctest.Wait()
		r.lose()
		r.store.full.Store(true)
		look := func() {
			_, err := r.hubs[0].Publish(context.Background(), "c", msg("n", "0"))
			require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		}
		look()
		time.Sleep(1500 * time.Millisecond)
		r.store.lag.Store(int64(20 * time.Millisecond))
		look()
		time.Sleep(5 * time.Millisecond) // the read is under way
		r.store.full.Store(false)
		r.publish(1, "c", 1)
		settle(5 * time.Second)
		require.Equal(t, offsets(1, 5)+" epoch@0 1", s.story())
	})
}

func TestAResumeBeforeTheAnswerOfAnAppend(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		live := r.subscribe(0, "c", nil)
		r.store.addLag.Store(int64(50 * time.Millisecond)) // the answers come later
		r.store.appended = true
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() { r.publish(0, "c", n) })
		}
		time.Sleep(10 * time.Millisecond)
		h := historyOf(t, r.hubs[0], "c", channels.HistoryQuery{})
		require.Len(t, h.Messages, 8)
		late := r.subscribe(0, "c", &h.Messages[4].Position)
		wg.Wait()
		settle(10 * time.Second)
		require.Equal(t, offsets(1, 8), live.story())
		require.Equal(t, offsets(6, 8), late.story())
	})
}

// A subscriber catches up slowly, its queue holds two of the messages, and it is not
// closed: the hub waits for room.
func TestCatchingUpWaitsForRoom(t *testing.T) {
	const most = 8 << 10
	inBubble(t, 1, keep(1000), func(r *replicas) {
		body := `"` + long(most-2) + `"`
		publish := func() channels.Position { return publish(t, r.hubs[0], "c", "n", body).Position }
		at := publish()
		for range 49 {
			publish()
		}
		sub := subscription(r.t, r.hubs[0], "c", &at)
		n := at.Offset
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			n++
			require.Equal(t, n, m.Position.Offset)
			time.Sleep(10 * time.Millisecond)
			if n == 20 {
				publish() // while it catches up
			}
			if n == 51 {
				break
			}
		}
	}, func(_ int, o *channels.Options) { o.MaxMessageBytes, o.QueueBytes = most, 2*most })
}

// The hub reads only a bounded part of the history for a subscriber that catches
// up but does not read.
func TestCatchingUpIsBoundedInBytes(t *testing.T) {
	m, err := store.NewMemory(store.MemoryOptions{MaxBytes: 1 << 30})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	hub := newHub(t, channels.Options{Store: m, Channel: history, Logger: quiet})
	big := msg("x", `"`+strings.Repeat("x", 200<<10)+`"`)
	for range 130 {
		publishWith(t, hub, "c", big, channels.PublishOptions{})
	}
	before := heap()
	const n = 10
	for range n {
		s := subscription(t, hub, "c", &channels.Position{})
		for _, err := range s.Messages() { // the first one has come: now it waits for room
			require.NoError(t, err)
			break
		}
	}
	// For each: its queue of 1 MiB, a page of a quarter of that, and what is being encoded.
	require.Less(t, int(heap()-before)/n, 3<<20)
}
