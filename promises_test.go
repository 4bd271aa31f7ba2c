package channels_test

import (
	"context"
	"slices"
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
				time.Sleep(5 * time.Second) // what is promised, and not more
				synctest.Wait()
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
		time.Sleep(5 * time.Second)
		synctest.Wait()
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
		_, _, err := r.store.Append(context.Background(), "c", store.Entry{Header: "n", Body: []byte("1")}, store.AppendOptions{Size: 10, TTL: time.Hour})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantAll(t, s.close(), 1, 1)
	})
}

func TestPromiseAfterAReconnectExactlyWhatWasMissed(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Drop: 0.2, Duplicate: 0.2, Delay: 30 * time.Millisecond})
		r.store.lag.Store(int64(3 * time.Millisecond))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						r.publish(i, "c", n)
					}
				}
			})
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
		close(stop)
		wg.Wait()
		s := r.subscribe(0, "c", &from)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		all = append(all, s.close()...)
		h, err := r.hubs[0].History(context.Background(), "c", channels.HistoryQuery{Limit: 1})
		require.NoError(t, err)
		wantAll(t, all, first.Position.Offset+1, h.Position.Offset)
		require.Greater(t, len(all), 1000)
	})
}

func TestPromiseAfterAReconnectAnExplicitReset(t *testing.T) {
	small := func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 5} }
	inBubble(t, 1, small, func(r *replicas) {
		first := r.publish(0, "c", 1)
		for n := 2; n <= 10; n++ {
			r.publish(0, "c", n)
		}
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
			res, err := r.hubs[0].PublishWith(context.Background(), "c", msg("n", "0"), channels.PublishOptions{Local: true})
			require.NoError(t, err)
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
		want := func(subscribers int, users ...string) {
			r.t.Helper()
			c, err := r.hubs[0].Channel(context.Background(), "c")
			require.NoError(r.t, err)
			require.Equal(r.t, subscribers, c.Subscribers)
			p, err := r.hubs[0].Presence(context.Background(), "c", 0)
			require.NoError(r.t, err)
			var got []string
			for _, m := range p.Members {
				got = append(got, m.User)
			}
			require.ElementsMatch(r.t, users, got)
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
		past, err := r.hubs[1].History(context.Background(), "c", channels.HistoryQuery{})
		require.NoError(r.t, err)
		wantAll(r.t, past.Messages, 1, 2)
	})
}

// Presence events come at most once. If the mesh loses some, the list is right all
// the same, and the lost events are not sent later.
func TestPromiseThePresenceListIsRightWhereEventsAreLost(t *testing.T) {
	events := func(string) channels.ChannelOptions {
		return channels.ChannelOptions{Presence: channels.PresenceEvents}
	}
	inBubble(t, 2, events, func(r *replicas) {
		got, end := r.stream(0, "c")
		time.Sleep(4500 * time.Millisecond)
		seen := r.member(1, "c", "seen")
		synctest.Wait() // who has gone before it was let in was never there
		seen()
		listed := func() (users []string) {
			p, err := r.hubs[0].Presence(context.Background(), "c", 0)
			require.NoError(t, err)
			for _, m := range p.Members {
				if m.User != "" {
					users = append(users, m.User)
				}
			}
			return users
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
