package channels_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

func TestAGapIsFilledWithFewReads(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		r.net.Cut("r0", "r1")
		r.publishAll(0, "c", 1, 100)
		r.net.Heal()
		before := r.store.ranges.Load()
		r.publish(0, "c", 101)
		settle(time.Second)
		require.LessOrEqual(t, r.store.ranges.Load()-before, int64(2))
		wantAll(t, s.close(), 1, 102)
	})
}

func TestALateMessageNeedsNoRead(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Delay: 30 * time.Millisecond, Duplicate: 0.2})
		r.publishAll(0, "c", 1, 100)
		settle(10 * time.Second)
		r.net.SetFaults(meshtest.Faults{Duplicate: 1, Delay: 30 * time.Millisecond})
		r.publish(0, "c", 100) // the last one comes twice
		settle(10 * time.Second)
		require.Zero(t, r.store.ranges.Load())
		wantAll(t, s.close(), 1, 101)
	})
}

// A client that PublishOptions.Except names does not get the message, even if it
// arrives early or twice.
func TestExceptOverARoughNetwork(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Delay: 20 * time.Millisecond, Duplicate: 0.3}) // less than a gap waits
		sender, other := r.subscribe(1, "c", nil), r.subscribe(1, "c", nil)
		const n = 200
		for range n {
			publishWith(t, r.hubs[0], "c", msg("x", "1"), channels.PublishOptions{Except: sender.sub.ID()})
		}
		settle(5 * time.Second)
		require.Empty(t, sender.close())
		wantAll(t, other.close(), 1, n)
	})
}

// A message arrives through the mesh, and the store loses it. It must not block
// the next message, which gets the same offset.
func TestAMessageThatTheStoreLostIsNotKept(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		r.net.SetFaults(meshtest.Faults{Drop: 1})
		r.publish(0, "c", 2)
		r.net.SetFaults(meshtest.Faults{})
		r.store.hidden.Store(2) // what is read next does not have 2 and 3
		r.publish(0, "c", 3)    // comes early
		reads := r.store.ranges.Load()
		settle(time.Second)
		require.LessOrEqual(t, r.store.ranges.Load()-reads, int64(2), "the store is asked again and again")
		r.store.hidden.Store(0)
		settle(5 * time.Second)
		wantAll(t, s.close(), 1, 3)
	})
}

// A reset names only messages that are no longer kept.
func TestOneLostMessageThatIsNoLongerKept(t *testing.T) {
	inBubble(t, 2, keep(10), func(r *replicas) {
		live := r.subscribe(1, "c", nil)
		r.publishAll(0, "c", 1, 5)
		r.drop(func() { r.publish(0, "c", 6) })
		r.publishAll(0, "c", 7, 30)
		settle(5 * time.Second)
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
		settle(5 * time.Second)
		require.Equal(t, offsets(1, 40), live.story())
	})
}

// A late message of an earlier epoch makes the hub read the log once, not again and
// again.
func TestALateMessageOfAnEarlierEpochCostsOneRead(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.publishAll(0, "c", 1, 3)
		r.store.topLag.Store(int64(200 * time.Millisecond))
		done := make(chan *subscriber)
		go func() { done <- r.subscribe(1, "c", nil) }()
		time.Sleep(100 * time.Millisecond)
		late := mesh.Packet{Channel: "c", Header: "n", Body: []byte("0"), Epoch: "earlier", Offset: 1000, Origin: "r0"}
		r.meshes[1].bring(late) // during the sync
		s := <-done
		r.store.topLag.Store(0)
		before := r.store.ranges.Load()
		time.Sleep(time.Minute)
		r.meshes[1].bring(late) // and once more
		settle(time.Minute)
		require.LessOrEqual(t, r.store.ranges.Load()-before, int64(2))
		r.publish(0, "c", 4)
		synctest.Wait()
		require.Equal(t, "4", s.story())
	})
}

// A replica that is 10,000 messages behind fetches them without closing a subscriber
// that reads, even if that one reads slower than the replica fetches.
func TestAFillClosesNobodyWhoReads(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		const n = 10_000
		var readers sync.WaitGroup
		for range 5 {
			sub := subscription(r.t, r.hubs[1], "c", nil)
			readers.Go(func() { // keeps no message: they would be many megabytes
				for offset := range uint64(n) {
					if m := next(t, sub); m.Position.Offset != offset+1 {
						t.Errorf("message %d has the offset %d", offset+1, m.Position.Offset)
					}
					if offset%100 == 0 {
						time.Sleep(time.Millisecond) // of the bubble's clock: meanwhile the replica does all that it can
					}
				}
			})
		}
		body := `"` + long(1<<10) + `"`
		r.net.Cut("r0", "r1")
		for range n {
			publish(t, r.hubs[0], "c", "n", body)
		}
		r.net.Heal()
		began := time.Now()
		readers.Wait()
		require.Less(t, time.Since(began), 10*time.Second)
		require.Zero(t, r.hubs[1].Stats().Queued, "more has come")
	})
}

// slowToQueue is a mesh that takes a second to take a question.
type slowToQueue struct{ mesh.Mesh }

func (m slowToQueue) Publish(ctx context.Context, p mesh.Packet) error {
	if p.Header == "question" {
		time.Sleep(time.Second)
	}
	return m.Mesh.Publish(ctx, p)
}

// Whoever answers a message through the replica that it came from answers behind it, for
// the subscribers of the other replicas too, without history.
func TestAnAnswerComesBehindItsQuestion(t *testing.T) {
	inBubble(t, 2, every(channels.ChannelOptions{}), func(r *replicas) {
		here, there := subscription(r.t, r.hubs[0], "c", nil), r.subscribe(1, "c", nil)
		synctest.Wait()
		go func() {
			for m := range here.Messages() {
				if m.Header == "question" {
					publish(r.t, r.hubs[0], "c", "answer", "1")
				}
			}
		}()
		publish(r.t, r.hubs[0], "c", "question", "1")
		settle(2 * time.Second)
		got := there.close()
		require.Len(t, got, 2)
		require.Equal(t, []string{"question", "answer"}, []string{got[0].Header, got[1].Header})
	}, func(_ int, o *channels.Options) { o.Mesh = slowToQueue{o.Mesh} })
}
