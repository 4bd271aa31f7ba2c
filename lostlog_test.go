package channels_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

func TestALogThatIsLostResetsItsSubscribers(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		old := r.publish(0, "c", 1).Position
		synctest.Wait()
		lose(t, r)
		now := r.publish(0, "c", 2).Position
		require.NotEqual(t, old.Epoch, now.Epoch)
		require.EqualValues(t, 1, now.Offset)
		r.publish(1, "c", 3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, s := range []*subscriber{a, b} {
			got := s.close()
			require.Len(t, s.resets, 1)
			require.Equal(t, channels.Position{Epoch: now.Epoch}, s.resets[0].Position)
			require.Len(t, got, 3)
			require.Equal(t, old, got[0].Position)
			wantAll(t, got[1:], 1, 2)
		}
	})
}

// A failover to a replica of the store can lose the last messages. Subscribers are
// told, and go on from what is left.
func TestAStoreThatLosesItsLastMessages(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		s := r.subscribe(0, "c", nil)
		var last channels.Position
		for n := range 10 {
			last = r.publish(0, "c", n).Position
		}
		r.store.hidden.Store(3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantAll(t, s.close(), 1, 10)
		require.Len(t, s.resets, 1)
		require.Equal(t, channels.Position{Epoch: last.Epoch, Offset: 7}, s.resets[0].Position)
	})
}

// If a log is lost while a subscriber catches up, that subscriber is reset once, and
// gets nothing of the old log after the reset.
func TestALogThatIsLostWhileASubscriberCatchesUp(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		first := r.publish(0, "c", 0).Position
		for n := range 1000 {
			r.publish(0, "c", n)
		}
		live := r.subscribe(0, "c", nil)
		r.store.lag.Store(int64(100 * time.Millisecond))
		late := r.subscribe(0, "c", &first)
		time.Sleep(250 * time.Millisecond) // two pages of eight
		lose(t, r)
		now := r.publish(0, "c", 1).Position
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Len(t, live.close(), 1)
		require.Len(t, live.resets, 1)
		got := late.close()
		require.Len(t, late.resets, 1)
		require.Equal(t, channels.Position{Epoch: now.Epoch}, late.resets[0].Position)
		require.Equal(t, now, got[len(got)-1].Position)
		wantAll(t, got[:len(got)-1], 2, uint64(len(got)))
		require.Less(t, len(got), 500)
	})
}

// A log was lost, and nothing was appended since. A subscriber that asks for it from
// the beginning is not reset, although others here got messages of the old log.
func TestTheBeginningOfALostLog(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		live := r.subscribe(0, "c", nil)
		for i := range 3 {
			r.publish(0, "c", i)
		}
		lose(t, r)
		time.Sleep(5 * time.Second)
		late := r.subscribe(0, "c", new(channels.Position))
		time.Sleep(5 * time.Second)
		late.mu.Lock()
		resets := len(late.resets)
		late.mu.Unlock()
		require.Zero(t, resets)
		pos := r.publish(0, "c", 3).Position
		synctest.Wait()
		for _, s := range []*subscriber{live, late} {
			got := s.close()
			require.Equal(t, pos, got[len(got)-1].Position)
		}
		require.Len(t, live.resets, 1)
		require.Empty(t, late.resets, "this one was before the first message of whatever log")
		require.Len(t, late.got, 1)
	})
}

// lose removes all logs, as a restart of the store without persistence does.
func lose(t *testing.T, r *replicas) {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	r.store.log.Store(m)
}

// A subscriber whose position is beyond the end of the store's log is reset at once.
func TestCatchingUpWithAStoreThatLostItsEnd(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		defer r.subscribe(0, "c", nil).close()
		var from channels.Position
		for n := range 10 {
			if res := r.publish(0, "c", n); n == 4 {
				from = res.Position
			}
		}
		r.store.hidden.Store(2)
		reads := r.store.ranges.Load()
		s := r.subscribe(0, "c", &from)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.LessOrEqual(t, r.store.ranges.Load()-reads, int64(2))
		r.store.hidden.Store(0)
		wantAll(t, s.close(), 6, 8)
		require.Len(t, s.resets, 1)
		require.Equal(t, "epoch", s.resets[0].Reason)
	})
}

// losing runs f with replicas on a modelStore that makes no faults by itself.
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

// The log loses its end and goes on. A subscriber that had more than what is left is
// reset to where the two lives part, also one that resumes; others are not reset.
// What follows comes once.
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

// Until the next append, the log just ends earlier. That append does not reset a
// subscriber for the second time.
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

// A failover that loses no message does not show to a subscriber.
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
