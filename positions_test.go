package channels_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// These tests are single cases of docs/positions.md; TestModel tries the rest.

func keep(size int) func(string) channels.ChannelOptions {
	return func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: size} }
}

// drop loses what f publishes on the way to all other replicas, without a word.
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

func offsets(first, last int) string {
	var b strings.Builder
	for n := first; n <= last; n++ {
		b.WriteString(" " + strconv.Itoa(n))
	}
	return b.String()[1:]
}

// A client resumes in a log that was born after this replica had looked.
func TestAResumeInALogThatThisReplicaHasNotSeen(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		var at channels.Position
		r.drop(func() {
			for n := 1; n <= 8; n++ {
				if p := r.publish(0, "c", n).Position; n == 5 {
					at = p
				}
			}
		})
		late := r.subscribe(1, "c", &at)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 8), live.story())
		require.Equal(t, offsets(6, 8), late.story())
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
		h, err := r.hubs[0].History(context.Background(), "c", channels.HistoryQuery{})
		require.NoError(t, err)
		require.Len(t, h.Messages, 8)
		late := r.subscribe(0, "c", &h.Messages[4].Position)
		wg.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 8), live.story())
		require.Equal(t, offsets(6, 8), late.story())
	})
}

// A client that has been further than this replica misses nothing that this
// replica has missed.
func TestAClientThatIsAheadOfALaggingReplica(t *testing.T) {
	inBubble(t, 2, keep(10), func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		for n := range 5 {
			r.publish(0, "c", n)
		}
		synctest.Wait()
		var at channels.Position
		r.drop(func() {
			for n := 6; n <= 30; n++ {
				if p := r.publish(0, "c", n).Position; n == 28 {
					at = p
				}
			}
		})
		ahead := r.subscribe(1, "c", &at)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(29, 30), ahead.story())
		require.Equal(t, offsets(1, 5)+" trimmed@20 "+offsets(21, 30), live.story())
		r.publish(1, "c", 31)
		synctest.Wait()
		require.Equal(t, offsets(29, 31), ahead.story())
	})
}

func TestAClientThatIsAheadInALogThatThisReplicaHasNotNoticed(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		for n := range 5 {
			r.publish(0, "c", n)
		}
		synctest.Wait()
		lose(t, r)
		var at channels.Position
		r.drop(func() {
			for n := 1; n <= 8; n++ {
				if p := r.publish(0, "c", n).Position; n == 6 {
					at = p
				}
			}
		})
		ahead := r.subscribe(1, "c", &at)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(7, 8), ahead.story())
		require.Equal(t, offsets(1, 5)+" epoch@0 "+offsets(1, 8), live.story())
	})
}

// Only what is gone is told as gone.
func TestOneLostMessageThatIsNoLongerKept(t *testing.T) {
	inBubble(t, 2, keep(10), func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		for n := 1; n <= 30; n++ {
			publish := func() { r.publish(0, "c", n) }
			if n == 6 {
				r.drop(publish)
			} else {
				publish()
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 5)+" trimmed@6 "+offsets(7, 30), live.story())
	})
}

func TestLateMessagesOfASmallHistory(t *testing.T) {
	inBubble(t, 3, keep(1), func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Delay: 120 * time.Millisecond})
		for n := range 40 {
			r.publish(n%3, "c", n)
			time.Sleep(time.Duration(n%7) * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 40), live.story())
	})
}

// A publisher may die, or lose the answer, between the Store and the mesh:
// who repeats the message with its key has it delivered.
func TestARepeatedPublishIsDeliveredAtOnce(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		key, digest := channels.OwnKey(msg("n", "1"), "k")
		_, _, err := r.store.Append(context.Background(), "c", store.Entry{Header: "n", Body: []byte("1")},
			store.AppendOptions{Size: 10, TTL: time.Hour, Key: key, KeyTTL: time.Hour, Digest: digest})
		require.NoError(t, err)
		for range 3 {
			res, err := r.hubs[1].PublishWith(context.Background(), "c", msg("n", "1"), channels.PublishOptions{Key: "k"})
			require.NoError(t, err)
			require.True(t, res.Duplicate)
		}
		synctest.Wait() // no time has passed
		for _, s := range []*subscriber{a, b} {
			got := s.close()
			wantAll(t, got, 1, 1)
			require.JSONEq(t, "1", string(got[0].Body), "what was stored counts")
		}
	})
}

// Subscribers share what they wait for: a Store that hangs refuses all of them
// after its time, and who gives up fails nobody else.
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

// What is late of an earlier life of the log costs one read, not one each
// moment.
func TestALateMessageOfAnEarlierEpochCostsOneRead(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 2, history, func(r *replicas) {
		for n := range 3 {
			r.publish(0, "c", n)
		}
		r.store.topLag.Store(int64(200 * time.Millisecond))
		done := make(chan *subscriber)
		go func() { done <- r.subscribe(1, "c", nil) }()
		time.Sleep(100 * time.Millisecond)
		late := mesh.Packet{Channel: "c", Header: "n", Body: []byte("0"), Epoch: "earlier", Offset: 1000, Origin: "r0"}
		(*meshes[1].deliver.Load())(late) // during the sync
		s := <-done
		r.store.topLag.Store(0)
		before := r.store.ranges.Load()
		time.Sleep(time.Minute)
		(*meshes[1].deliver.Load())(late) // and once more
		time.Sleep(time.Minute)
		synctest.Wait()
		require.LessOrEqual(t, r.store.ranges.Load()-before, int64(2))
		r.publish(0, "c", 4)
		synctest.Wait()
		require.Equal(t, "4", s.story())
	}, breakable(&meshes))
}

// A replica that is far behind closes nobody who reads.
func TestAFillClosesNobodyWhoReads(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		var readers []*subscriber
		for range 50 {
			readers = append(readers, r.subscribe(1, "c", nil))
		}
		body := json.RawMessage(`"` + strings.Repeat("x", 1<<10) + `"`)
		r.net.Cut("r0", "r1")
		const n = 10_000
		for range n {
			_, err := r.hubs[0].Publish(context.Background(), "c", channels.Message{Header: "n", Body: body})
			require.NoError(t, err)
		}
		r.net.Heal()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, s := range readers {
			wantAll(t, s.close(), 1, n)
			require.NoError(t, s.end)
			require.Empty(t, s.resets)
		}
	})
}

// Who catches up slowly, with messages that are nearly as long as they may be
// and a queue that holds two of them, is waited for.
func TestCatchingUpWaitsForRoom(t *testing.T) {
	const most = 8 << 10
	inBubble(t, 1, keep(1000), func(r *replicas) {
		body := json.RawMessage(`"` + strings.Repeat("x", most-2) + `"`)
		publish := func() channels.Position {
			res, err := r.hubs[0].Publish(context.Background(), "c", channels.Message{Header: "n", Body: body})
			require.NoError(t, err)
			return res.Position
		}
		at := publish()
		for range 49 {
			publish()
		}
		sub, err := r.hubs[0].Subscribe(context.Background(), "c", &at)
		require.NoError(t, err)
		defer sub.Close()
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

// A day of silence is no reason for a reset: who is subscribed keeps the log's
// memory alive.
func TestADayOfSilence(t *testing.T) {
	if raceDetector {
		t.Skip("a day has too many timers for the race detector (go.dev/issue/78156); \"make test\" runs this one without it, too")
	}
	synctest.Test(t, func(t *testing.T) {
		h, err := channels.New(channels.Options{Channel: keep(10), Logger: quiet})
		require.NoError(t, err)
		s := subscribe(t, h, "c", nil)
		publish := func() {
			_, err := h.Publish(context.Background(), "c", msg("n", "1"))
			require.NoError(t, err)
			synctest.Wait()
		}
		publish()
		time.Sleep(store.MetaTTL + time.Hour)
		publish()
		require.Equal(t, "1 2", s.story())
		require.NoError(t, h.Shutdown(context.Background()))
		<-s.done
	})
}

// A subscriber's own message, which it does not get, moves it on like any other,
// also while it is behind the channel, or ahead of it.
func TestOnesOwnMessageWhileOneCatchesUp(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		var at channels.Position
		for n := 1; n <= 5; n++ {
			if p := r.publish(0, "c", n).Position; n == 3 {
				at = p
			}
		}
		r.store.lag.Store(int64(50 * time.Millisecond))
		s := r.subscribe(0, "c", &at)
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
		var at channels.Position
		for n := 1; n <= 5; n++ {
			if p := r.publish(0, "c", n).Position; n == 4 {
				at = p
			}
		}
		r.store.addLag.Store(int64(50 * time.Millisecond))
		r.store.appended = true // 6 is stored, and the channel does not know yet
		go r.publish(0, "c", 6)
		time.Sleep(10 * time.Millisecond)
		s := r.subscribe(0, "c", &at)
		time.Sleep(time.Second)
		r.store.addLag.Store(0)
		r.publishExcept(s, 7)
		for n := 8; n <= 10; n++ {
			r.publish(0, "c", n)
		}
		synctest.Wait()
		require.Equal(t, "5 6 8 9 10", s.story())
		require.Equal(t, offsets(1, 10), live.story())
	})
}

func (r *replicas) publishExcept(s *subscriber, n int) {
	r.t.Helper()
	_, err := r.hubs[0].PublishWith(context.Background(), "c", msg("n", strconv.Itoa(n)), channels.PublishOptions{Except: s.sub.ID()})
	require.NoError(r.t, err)
}

// A log is lost, and born again while the channel looks for what is not there.
func TestALogThatIsBornWhileTheChannelLooks(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(0, "c", nil)
		for n := 1; n <= 5; n++ {
			r.publish(1, "c", n)
		}
		synctest.Wait()
		lose(t, r)
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
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 5)+" epoch@0 1", s.story())
	})
}

// The tests below have a Store that loses the end of a log, as a failover does.

// losing runs f with replicas on a modelStore without faults of its own.
func losing(t *testing.T, n, size int, f func(m *modelStore, r *replicas)) {
	synctest.Test(t, func(t *testing.T) {
		m := newModelStore(rand.New(rand.NewPCG(1, 1)), size)
		defer m.Close()
		r := &replicas{t: t, net: meshtest.NewNetwork(1)}
		for i := range n {
			id := "r" + strconv.Itoa(i)
			node := r.net.Join(id)
			defer node.Close()
			hub, err := channels.New(channels.Options{ReplicaID: id, Store: m, Mesh: node, Channel: keep(size), Logger: quiet})
			require.NoError(t, err)
			defer func() { require.NoError(t, hub.Shutdown(context.Background())) }()
			r.hubs = append(r.hubs, hub)
		}
		synctest.Wait()
		f(m, r)
	})
}

// Each subscriber, also one that resumes, is reset to where the two lives part
// if it had more, and to nowhere if not; what follows comes once.
func TestALostEndResetsEachFromItsOwnPosition(t *testing.T) {
	losing(t, 2, 1000, func(m *modelStore, r *replicas) {
		live := r.subscribe(1, modelChannel, nil)
		var at [9]channels.Position
		for n := 1; n <= 8; n++ {
			at[n] = r.publish(0, modelChannel, n).Position
		}
		synctest.Wait()
		m.loseEnd(1)
		stranger := r.subscribe(0, modelChannel, nil) // this one never saw 8
		now := r.publish(0, modelChannel, 9).Position
		require.NotEqual(t, at[8].Epoch, now.Epoch)
		require.EqualValues(t, 8, now.Offset, "the log goes on where it was left")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 8)+" epoch@7 8", live.story())
		require.Equal(t, "8", stranger.story())
		for n, want := range map[int]string{8: "epoch@7 8", 7: "8", 5: offsets(6, 8)} {
			s := r.subscribe(1, modelChannel, &at[n])
			synctest.Wait()
			require.Equal(t, want, s.story(), "since %d", n)
			require.Equal(t, now, s.close()[len(s.got)-1].Position)
		}
	})
}

// Until the next append, the log just ends earlier; the one that follows it is
// no second reset.
func TestALostEndThatIsNoticedBeforeTheNextAppend(t *testing.T) {
	losing(t, 2, 1000, func(m *modelStore, r *replicas) {
		live := r.subscribe(1, modelChannel, nil)
		for n := 1; n <= 51; n++ {
			r.publish(0, modelChannel, n)
		}
		synctest.Wait()
		m.loseEnd(1)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(t, offsets(1, 51)+" epoch@50", live.story())
		r.publish(0, modelChannel, 52)
		synctest.Wait()
		require.Equal(t, offsets(1, 51)+" epoch@50 51", live.story())
	})
}

// A failover that loses nothing is nothing to a subscriber.
func TestAnotherEpochOfTheSameLog(t *testing.T) {
	losing(t, 2, 1000, func(m *modelStore, r *replicas) {
		live := r.subscribe(1, modelChannel, nil)
		var epochs []string
		for n := 1; n <= 10; n++ {
			p := r.publish(0, modelChannel, n).Position
			epochs = append(epochs, p.Epoch)
			synctest.Wait()
			m.mu.Lock()
			m.log.rewound = true
			m.mu.Unlock()
		}
		require.NotEqual(t, epochs[0], epochs[1])
		synctest.Wait()
		require.Equal(t, offsets(1, 10), live.story())
		old := r.subscribe(1, modelChannel, &channels.Position{Epoch: epochs[4], Offset: 5})
		synctest.Wait()
		require.Equal(t, offsets(6, 10), old.story())
	})
}
