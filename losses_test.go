package channels_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
)

// tell has a replica's mesh say that packets may be lost.
func (b *brittle) tell(channel string) {
	(*b.deliver.Load())(mesh.Packet{Kind: mesh.KindLost, Channel: channel})
}

// A message that the mesh says it has lost is fetched at once.
func TestWhatTheMeshSaysItLostIsFetchedAtOnce(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(1, "a", nil), r.subscribe(1, "b", nil)
		lose := func(ch string) {
			r.net.Cut("r0", "r1")
			r.publish(0, ch, 1)
		}
		lose("a")
		meshes[1].tell("a")
		synctest.Wait() // no time has passed
		require.Len(t, a.messages(), 1)
		lose("b")
		r.net.Heal()                       // tells of all channels
		time.Sleep(100 * time.Millisecond) // less than a period of the comparison
		synctest.Wait()
		wantAll(t, a.close(), 1, 1)
		wantAll(t, b.close(), 1, 1)
	}, breakable(&meshes))
}

// A message may be lost after a subscriber has asked for the top, and before
// it has the answer.
func TestALossWhileASubscriberComes(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.store.topLag.Store(int64(200 * time.Millisecond))
		r.net.Cut("r0", "r1")
		var s *subscriber
		done := make(chan struct{})
		go func() {
			defer close(done)
			s = r.subscribe(1, "c", new(channels.Position)) // who begins with what comes may come after it
		}()
		time.Sleep(100 * time.Millisecond)
		r.publish(0, "c", 1)
		r.net.Heal()
		<-done
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
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
		time.Sleep(1500 * time.Millisecond) // one comparison, not two
		synctest.Wait()
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
	var meshes []*brittle
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		r.net.Cut("r0", "r1")
		for i := range n {
			r.publish(0, strconv.Itoa(i), 1)
		}
		before := r.store.tops.Load()
		for i := range 100_000 {
			meshes[1].tell(strconv.Itoa(i % n))
			if i%10_000 == 0 {
				meshes[1].tell("")
				meshes[1].tell("nobody is there")
				synctest.Wait()
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.LessOrEqual(t, r.store.tops.Load()-before, int64(5))
		r.wantOneEach(subs)
	}, breakable(&meshes))
}

// However many channels there are, the Store is asked for all of them, a bounded number
// at a time.
func TestTopsAreAskedForInParts(t *testing.T) {
	const n, atOnce = 9000, 4096
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		before := r.store.tops.Load()
		r.net.Cut("r0", "r1")
		for i := range n {
			r.publish(0, strconv.Itoa(i), 1)
		}
		r.net.Heal() // tells of all channels
		synctest.Wait()
		require.EqualValues(t, (n+atOnce-1)/atOnce, r.store.tops.Load()-before)
		require.EqualValues(t, atOnce, r.store.most.Load())
		r.wantOneEach(subs)
	})
}

// If the Store fails in between, the remaining channels are asked for later.
func TestTopsAreAskedForAgain(t *testing.T) {
	const n = 9000
	inBubble(t, 2, history, func(r *replicas) {
		subs := r.subscribeToMany(n)
		r.net.Cut("r0", "r1")
		for i := range n {
			r.publish(0, strconv.Itoa(i), 1)
		}
		r.store.topLag.Store(int64(10 * time.Millisecond))
		before := r.store.tops.Load()
		r.net.Heal()
		time.Sleep(5 * time.Millisecond) // in the first part
		r.store.down.Store(true)
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 2, r.store.tops.Load()-before) // the second one has failed
		r.store.down.Store(false)
		r.store.topLag.Store(0)
		time.Sleep(1500 * time.Millisecond) // one comparison, not two
		synctest.Wait()
		r.wantOneEach(subs)
	})
}
