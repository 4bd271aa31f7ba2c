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
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

// tell has a replica's mesh say that packets may be lost.
func (b *brittle) tell(channel string) {
	b.bring(mesh.Packet{Kind: mesh.KindLost, Channel: channel})
}

// A message that the mesh says it has lost is fetched at once.
func TestWhatTheMeshSaysItLostIsFetchedAtOnce(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(1, "a", nil), r.subscribe(1, "b", nil)
		lose := func(ch string) {
			r.net.Cut("r0", "r1")
			r.publish(0, ch, 1)
		}
		lose("a")
		r.meshes[1].tell("a")
		synctest.Wait() // no time has passed
		require.Len(t, a.messages(), 1)
		lose("b")
		r.net.Heal()                   // tells of all channels
		settle(100 * time.Millisecond) // less than a period of the comparison
		wantAll(t, a.close(), 1, 1)
		wantAll(t, b.close(), 1, 1)
	})
}

// A message may be lost after a subscriber has asked for the top, and before
// it has the answer.
func TestALossWhileASubscriberComes(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.store.topLag.Store(int64(200 * time.Millisecond))
		r.net.Cut("r0", "r1")
		done := make(chan *subscriber)
		go func() { done <- r.subscribe(1, "c", new(channels.Position)) }() // who begins with what comes may come after it
		time.Sleep(100 * time.Millisecond)
		r.publish(0, "c", 1)
		r.net.Heal()
		s := <-done
		settle(100 * time.Millisecond)
		wantAll(t, s.close(), 1, 1)
	})
}

func TestALossWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.net.Cut("r0", "r1")
		r.publish(0, "c", 1)
		r.store.down.Store(true)
		r.net.Heal()
		time.Sleep(30200 * time.Millisecond)
		r.store.down.Store(false)
		settle(1500 * time.Millisecond) // one comparison, not two
		wantAll(t, s.close(), 1, 1)
	})
}

// subscribeToMany subscribes to the channels "0" to n-1 on the second replica. They
// are read by wantOneEach: a goroutine for each of thousands of subscribers takes the
// race detector seconds.
func (r *replicas) subscribeToMany(n int) (subs []*channels.Subscription) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // of the bubble: nobody waits longer for a message
	r.t.Cleanup(cancel)
	for i := range n {
		sub, err := r.hubs[1].Subscribe(ctx, strconv.Itoa(i), nil)
		require.NoError(r.t, err)
		subs = append(subs, sub)
	}
	return subs
}

// loseOneEach cuts the first replica off, and publishes one message there on each channel.
func (r *replicas) loseOneEach(n int) {
	r.t.Helper()
	r.net.Cut("r0", "r1")
	for i := range n {
		r.publish(0, strconv.Itoa(i), 1)
	}
}

// wantOneEach wants each subscription to have one message, the first of its channel.
func (r *replicas) wantOneEach(subs []*channels.Subscription) {
	r.t.Helper()
	for _, sub := range subs {
		for m, err := range sub.Messages() {
			if err != nil || m.Position.Offset != 1 {
				require.Fail(r.t, "not the first message", "%v, %v", m.Position, err)
			}
			break
		}
	}
	require.Zero(r.t, r.hubs[1].Stats().Queued, "a second message has come")
	for _, sub := range subs {
		sub.Close()
	}
}

// However often the mesh tells of a loss, the Store is asked only a few times, and for
// all channels at once.
func TestAFloodOfLossesCostsFewCalls(t *testing.T) {
	const n = 3000
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		r.loseOneEach(n)
		before := r.store.tops.Load()
		for i := range 100_000 {
			r.meshes[1].tell(strconv.Itoa(i % n))
			if i%10_000 == 0 {
				r.meshes[1].tell("")
				r.meshes[1].tell("nobody is there")
				synctest.Wait()
			}
		}
		settle(time.Second)
		require.LessOrEqual(t, r.store.tops.Load()-before, int64(5))
		r.wantOneEach(subs)
	})
}

// However many channels there are, the Store is asked for all of them, a bounded number
// at a time.
func TestTopsAreAskedForInParts(t *testing.T) {
	const n, atOnce = 4200, 4096
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		before := r.store.tops.Load()
		r.loseOneEach(n)
		r.net.Heal() // tells of all channels
		synctest.Wait()
		require.EqualValues(t, (n+atOnce-1)/atOnce, r.store.tops.Load()-before)
		require.EqualValues(t, atOnce, r.store.most.Load())
		r.wantOneEach(subs)
	})
}

// If the Store fails in between, the remaining channels are asked for later.
func TestTopsAreAskedForAgain(t *testing.T) {
	const n = 8200 // three parts
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		r.loseOneEach(n)
		r.store.topLag.Store(int64(10 * time.Millisecond))
		before := r.store.tops.Load()
		r.net.Heal()
		time.Sleep(5 * time.Millisecond) // in the first part
		r.store.down.Store(true)
		synctest.Wait()
		settle(10 * time.Millisecond)
		require.EqualValues(t, 2, r.store.tops.Load()-before) // the second one has failed
		r.store.down.Store(false)
		r.store.topLag.Store(0)
		settle(1500 * time.Millisecond) // one comparison, not two
		r.wantOneEach(subs)
	})
}

func TestALogThatIsLostResetsItsSubscribers(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		old := r.publish(0, "c", 1).Position
		synctest.Wait()
		r.lose()
		now := r.publish(0, "c", 2).Position
		require.NotEqual(t, old.Epoch, now.Epoch)
		require.EqualValues(t, 1, now.Offset)
		r.publish(1, "c", 3)
		settle(5 * time.Second)
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
		last := r.publishAll(0, "c", 1, 10)[10]
		r.store.hidden.Store(3)
		settle(5 * time.Second)
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
		r.publishAll(0, "c", 1, 1000)
		live := r.subscribe(0, "c", nil)
		r.store.lag.Store(int64(100 * time.Millisecond))
		late := r.subscribe(0, "c", &first)
		time.Sleep(250 * time.Millisecond) // two pages of eight
		r.lose()
		now := r.publish(0, "c", 1).Position
		settle(5 * time.Second)
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
		r.publishAll(0, "c", 0, 2)
		r.lose()
		time.Sleep(5 * time.Second)
		late := r.subscribe(0, "c", new(channels.Position))
		time.Sleep(5 * time.Second)
		require.Empty(t, late.story())
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
func (r *replicas) lose() { r.store.log.Store(newMemory(r.t)) }

// A subscriber whose position is beyond the end of the store's log is reset at once.
func TestCatchingUpWithAStoreThatLostItsEnd(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		defer r.subscribe(0, "c", nil).close()
		at := r.publishAll(0, "c", 1, 10)
		r.store.hidden.Store(2)
		reads := r.store.ranges.Load()
		s := r.subscribe(0, "c", &at[5])
		settle(time.Millisecond)
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
		m := newModelStore(t, rand.New(rand.NewPCG(1, 1)), size)
		r := &replicas{t: t, net: meshtest.NewNetwork(1)}
		for i := range n {
			hub := r.join("r"+strconv.Itoa(i), func(o *channels.Options) { o.Store, o.Channel = m, keep(size) })
			defer func() { require.NoError(t, hub.Shutdown(context.Background())) }()
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
		at := r.publishAll(0, modelChannel, 1, 8)
		synctest.Wait()
		m.loseEnd(1)
		stranger := r.subscribe(0, modelChannel, nil) // this one never saw 8
		now := r.publish(0, modelChannel, 9).Position
		require.NotEqual(t, at[8].Epoch, now.Epoch)
		require.EqualValues(t, 8, now.Offset, "the log goes on where it was left")
		settle(5 * time.Second)
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
		r.publishAll(0, modelChannel, 1, 51)
		synctest.Wait()
		m.loseEnd(1)
		settle(5 * time.Second)
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
