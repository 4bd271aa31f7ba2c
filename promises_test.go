package channels_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

func TestPromiseDeliveryWithHistoryExactlyOnceInOneOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults meshtest.Faults
	}{
		{"a perfect network", meshtest.Faults{}},
		{"reordered", meshtest.Faults{Delay: 20 * time.Millisecond}},
		{"duplicated", meshtest.Faults{Duplicate: 0.5, Delay: 5 * time.Millisecond}},
		{"a tenth is lost", meshtest.Faults{Drop: 0.1}},
		{"everything is lost", meshtest.Faults{Drop: 1}},
		{"all of it", meshtest.Faults{Drop: 0.3, Duplicate: 0.3, Delay: 200 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 3, history, func(r *replicas) {
				r.net.SetFaults(c.faults)
				var subs []*subscriber
				for i := range 9 {
					subs = append(subs, r.subscribe(i%3, "c", nil))
				}
				const each = 200
				var wg sync.WaitGroup
				for i := range 3 {
					wg.Go(func() {
						for n := range each {
							r.publish(i, "c", n)
							if n%20 == 0 {
								time.Sleep(time.Millisecond) // in the bubble: lets timers run
							}
						}
					})
				}
				wg.Wait()
				settle(5 * time.Second) // what is promised, and not more
				first := subs[0].close()
				wantAll(t, first, 1, 3*each)
				for _, s := range subs[1:] {
					require.True(t, slices.EqualFunc(first, s.close(), sameMessage))
					require.Empty(t, s.resets)
				}
			})
		})
	}
}

func TestPromiseALostLastMessageIsFoundWithin5s(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Drop: 1})
		r.publish(0, "c", 1)
		require.Equal(t, 1, r.net.Lost())
		settle(5 * time.Second)
		wantAll(t, s.close(), 1, 1)
	})
}

func TestPromiseDeliveryWithoutHistoryAtMostOnceInThePublishersOrder(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		near, far := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Drop: 0.2})
		for n := range 500 {
			res := r.publish(0, "c", n)
			require.Equal(t, channels.Result{Receivers: 1}, res)
		}
		synctest.Wait()
		require.Len(t, near.close(), 500)
		got := far.close()
		require.Equal(t, 500-r.net.Lost(), len(got))
		last := -1
		for _, m := range got {
			n, err := strconv.Atoi(string(m.Body))
			require.NoError(t, err)
			require.Greater(t, n, last)
			last = n
		}
	})
}

func TestPromiseAnAcknowledgedPublishWasHandedToEveryLivePeer(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		a, b := r.subscribe(1, "c", nil), r.subscribe(2, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Len(t, a.close(), 1)
		require.Len(t, b.close(), 1)
	})
}

func TestPromiseAnAcknowledgedPublishIsInTheStore(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		for n := range 50 {
			res := r.publish(0, "c", n)
			require.True(t, res.Stored)
			page, err := r.store.Range(context.Background(), "c", store.Query{After: res.Position.Offset - 1, Limit: 1})
			require.NoError(t, err)
			require.Len(t, page.Entries, 1)
			require.Equal(t, strconv.Itoa(n), string(page.Entries[0].Body))
		}
	})
}

func TestPromiseStoreDownWithoutHistoryGoesOn(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.store.down.Store(true)
		time.Sleep(30 * time.Second)
		late := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Len(t, s.close(), 1)
		require.Len(t, late.close(), 1)
	})
}

func TestPromiseStoreDownWithHistoryIsRefusedAndGoesOnByItself(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		r.store.down.Store(true)
		_, err := r.hubs[0].Publish(context.Background(), "c", msg("n", "2"))
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		require.ErrorIs(t, err, store.ErrUnavailable)
		_, err = r.hubs[0].Subscribe(context.Background(), "other", nil)
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		time.Sleep(30 * time.Second)
		r.store.down.Store(false)
		r.publish(0, "c", 2)
		synctest.Wait()
		wantAll(t, s.close(), 1, 2)
		require.Empty(t, s.resets)
		time.Sleep(2 * time.Second) // the next report
		c, err := r.hubs[0].Channel(context.Background(), "c")
		require.NoError(t, err)
		require.Equal(t, 2, c.Publishes)
	})
}

func TestStoreAnswerThatWasLostStillReachesSubscribers(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		s := r.subscribe(0, "c", nil)
		// Appended without the hub, as if the answer of the Append was lost.
		_, err := r.store.Append(context.Background(), "c", store.Entry{Header: "n", Body: []byte("1")}, store.AppendOptions{Size: 10, TTL: time.Hour})
		require.NoError(t, err)
		settle(5 * time.Second)
		wantAll(t, s.close(), 1, 1)
	})
}

func TestPromiseAfterAReconnectExactlyWhatWasMissed(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Drop: 0.2, Duplicate: 0.2, Delay: 30 * time.Millisecond})
		r.store.lag.Store(int64(3 * time.Millisecond))
		var stops []func()
		for i := range 2 {
			stops = append(stops, repeatedly(func(n int) {
				time.Sleep(time.Millisecond)
				r.publish(i, "c", n)
			}))
		}
		// A client that comes and goes on either replica, and resumes each time.
		var all []channels.Message
		first := r.publish(0, "c", 0)
		from := first.Position
		for i := range 40 {
			s := r.subscribe(i%2, "c", &from)
			time.Sleep(time.Duration(i*7%50) * time.Millisecond)
			got := s.close()
			require.Empty(t, s.resets)
			all = append(all, got...)
			if len(all) > 0 {
				from = all[len(all)-1].Position
			}
			time.Sleep(time.Duration(i*13%60) * time.Millisecond)
		}
		for _, stop := range stops {
			stop()
		}
		s := r.subscribe(0, "c", &from)
		settle(5 * time.Second)
		all = append(all, s.close()...)
		h := historyOf(t, r.hubs[0], "c", channels.HistoryQuery{Limit: 1})
		wantAll(t, all, first.Position.Offset+1, h.Position.Offset)
		require.Greater(t, len(all), 1000)
	})
}

func TestPromiseAfterAReconnectAnExplicitReset(t *testing.T) {
	small := keep(5)
	inBubble(t, 1, small, func(r *replicas) {
		first := r.publish(0, "c", 1)
		r.publishAll(0, "c", 2, 10)
		for _, c := range []struct {
			name   string
			from   channels.Position
			reason string
			got    int
		}{
			{"no longer kept", first.Position, "trimmed", 1},
			{"before the first, which is no longer kept", channels.Position{Epoch: first.Position.Epoch}, "trimmed", 1},
			{"another epoch", channels.Position{Epoch: "other", Offset: 10}, "epoch", 1},
			{"from the future", channels.Position{Epoch: first.Position.Epoch, Offset: 1000}, "epoch", 1},
			{"the oldest that can be resumed", channels.Position{Epoch: first.Position.Epoch, Offset: 5}, "", 6},
			{"nothing missed", channels.Position{Epoch: first.Position.Epoch, Offset: 10}, "", 1},
		} {
			t.Log(c.name)
			s := r.subscribe(0, "c", &c.from)
			synctest.Wait()
			if c.reason == "" {
				require.Empty(t, s.resets)
			} else {
				require.Len(t, s.resets, 1)
				require.Equal(t, c.reason, s.resets[0].Reason)
				require.Equal(t, channels.Position{Epoch: first.Position.Epoch, Offset: 10}, s.resets[0].Position)
			}
			res := publishWith(t, r.hubs[0], "c", msg("n", "0"), channels.PublishOptions{Local: true})
			require.Equal(t, 1, res.Receivers)
			synctest.Wait()
			require.Len(t, s.close(), c.got)
		}
	})
}

func TestPromiseAKilledReplicaLeavesListAndPresenceWithin10s(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		a, b := r.subscribe(0, "c", nil), r.subscribe(1, "c", nil)
		near, far := r.member(0, "c", "ann"), r.member(1, "c", "bob")
		defer near()
		defer far()
		want := func(subscribers int, names ...string) {
			r.t.Helper()
			c, err := r.hubs[0].Channel(context.Background(), "c")
			require.NoError(r.t, err)
			require.Equal(r.t, subscribers, c.Subscribers)
			require.Equal(r.t, names, users(r.t, r.hubs[0], "c"))
		}
		time.Sleep(2 * time.Second)
		want(4, "ann", "bob")
		r.store.mute.Store("r1") // as if killed: nothing is reported, nothing taken back
		r.publish(0, "c", 1)     // the others go on
		time.Sleep(10 * time.Second)
		want(2, "ann")
		r.publish(0, "c", 2)
		r.store.mute.Store("") // a replica that was only away comes back with all it has
		time.Sleep(3 * time.Second)
		want(4, "ann", "bob")
		wantAll(r.t, a.close(), 1, 2)
		wantAll(r.t, b.close(), 1, 2)
		past := historyOf(t, r.hubs[1], "c", channels.HistoryQuery{})
		wantAll(r.t, past.Messages, 1, 2)
	})
}

// Presence events come at most once. If the mesh loses some, the list is right all
// the same, and the lost events are not sent later.
func TestPromiseThePresenceListIsRightWhereEventsAreLost(t *testing.T) {
	events := every(channels.ChannelOptions{Presence: channels.PresenceEvents})
	inBubble(t, 2, events, func(r *replicas) {
		got, end := r.stream(0, "c", "")
		time.Sleep(4500 * time.Millisecond)
		seen := r.member(1, "c", "seen")
		synctest.Wait() // who has gone before it was let in was never there
		seen()
		listed := func() []string { // but for the watchers, who have no name
			return slices.DeleteFunc(users(r.t, r.hubs[0], "c"), func(user string) bool { return user == "" })
		}
		r.net.Cut("r0", "r1")
		leave := r.member(1, "c", "ann")
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"ann"}, listed())
		leave()
		time.Sleep(2 * time.Second)
		require.Empty(t, listed())
		stays := r.member(1, "c", "bob")
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"bob"}, listed())
		r.net.Heal()
		time.Sleep(30 * time.Second)
		require.Equal(t, []string{"bob"}, listed())
		stays()
		synctest.Wait()
		end()
		body := got.Body.String()
		require.Contains(t, body, `"user":"seen"`)
		require.NotContains(t, body, `"user":"ann"`)
		require.Equal(t, 1, strings.Count(body, `"user":"bob"`), "only that bob leaves, when the mesh is well again")
	})
}

// TestPromiseDeliveryThroughPartitions cuts replicas apart, two from one and
// all from all, again and again, under load and with packets lost, repeated
// and late, while a fourth replica is killed.
func TestPromiseDeliveryThroughPartitions(t *testing.T) {
	inBubble(t, 4, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Drop: 0.1, Duplicate: 0.1, Delay: 40 * time.Millisecond})
		var subs []*subscriber
		for i := range 6 {
			subs = append(subs, r.subscribe(i%3, "c", nil))
		}
		var wg sync.WaitGroup
		const each = 500
		for i := range 3 {
			wg.Go(func() {
				for n := range each {
					r.publish(i, "c", n)
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		r.publish(3, "c", 0) // acknowledged by one that is killed right after
		r.meshes[3].mute.Store(true)
		r.store.mute.Store("r3")
		for range 4 {
			r.net.Cut("r0", "r2")
			r.net.Cut("r1", "r2")
			time.Sleep(time.Second)
			r.net.Cut("r0", "r1")
			time.Sleep(time.Second)
			r.net.Heal()
			time.Sleep(500 * time.Millisecond)
		}
		wg.Wait()
		r.net.Cut("r0", "r1") // the last one is lost as well
		r.net.Cut("r0", "r2")
		r.publish(0, "c", each)
		settle(5 * time.Second)
		for _, s := range subs {
			require.Empty(t, s.resets)
			wantAll(t, s.close(), 1, 3*each+2)
		}
	})
}

// TestPromiseShutdownDeliversToTheLast drains a replica while another one
// publishes: who is told to go last misses nothing up to then.
func TestPromiseShutdownDeliversToTheLast(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		const clients = 200 // 5 ms for each
		bodies := make([]*httptest.ResponseRecorder, clients)
		for i := range bodies {
			var leave func()
			bodies[i], leave = r.stream(0, "c", "")
			defer leave()
		}
		inGo := r.subscribe(0, "c", nil)
		synctest.Wait()
		drained := background(func() error { return r.hubs[0].Drain(context.Background()) })
		published := 0
		for len(drained) == 0 {
			r.publish(1, "c", published)
			published++
			time.Sleep(10 * time.Millisecond)
		}
		require.NoError(t, <-drained)
		require.Greater(t, published, 90)
		most := 0
		for _, b := range bodies {
			most = max(most, strings.Count(b.Body.String(), `"header":"n"`))
		}
		require.GreaterOrEqual(t, most, published-2)
		synctest.Wait()
		require.Len(t, inGo.messages(), published, "Go subscribers stay until Shutdown")
		inGo.close()
	})
}

// TestPromiseShutdownHandsOverWhatWasAcknowledged shuts a replica down under
// load: what it has acknowledged reaches the other one's subscribers.
func TestPromiseShutdownHandsOverWhatWasAcknowledged(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		var acked atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { acked.Add(int64(untilClosed(t, r.hubs[0], "c", time.Millisecond))) })
		}
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, r.hubs[0].Shutdown(context.Background()))
		wg.Wait()
		synctest.Wait()
		require.Greater(t, acked.Load(), int64(500))
		require.Len(t, s.close(), int(acked.Load()))
	})
}
