package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
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

// These tests run several hubs in one process, on one store and a network
// that loses, repeats and reorders. They are what any mesh is measured by.
// They run in a synctest bubble: seconds pass at once.

// replicas are hubs that share a store and a network.
type replicas struct {
	t     *testing.T
	store *faultyStore
	net   *meshtest.Network
	hubs  []*channels.Hub
}

func history(string) channels.ChannelOptions {
	return channels.ChannelOptions{HistorySize: 100_000, HistoryTTL: time.Hour, Presence: channels.PresenceList}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// inBubble runs f with n replicas, and ends them. change may change what each is given.
func inBubble(t *testing.T, n int, options func(string) channels.ChannelOptions, f func(r *replicas), change ...func(i int, o *channels.Options)) {
	synctest.Test(t, func(t *testing.T) {
		m, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		r := &replicas{t: t, store: &faultyStore{Store: m}, net: meshtest.NewNetwork(1)}
		r.store.log.Store(m)
		for i := range n {
			id := "r" + strconv.Itoa(i)
			node := r.net.Join(id)
			defer node.Close()
			o := channels.Options{ReplicaID: id, Store: r.store, Mesh: node, Channel: options, Logger: quiet}
			for _, c := range change {
				c(i, &o)
			}
			hub, err := channels.New(o)
			require.NoError(t, err)
			r.hubs = append(r.hubs, hub)
		}
		defer func() {
			r.store.down.Store(false)
			r.store.full.Store(false)
			r.store.mute.Store("")
			for _, h := range r.hubs {
				if err := h.Shutdown(context.Background()); err != nil {
					t.Errorf("shutdown: %v", err)
				}
			}
			m.Close()
			synctest.Wait()
		}()
		synctest.Wait() // all receive
		f(r)
	})
}

// faultyStore can be down, or lose what one replica reports.
type faultyStore struct {
	store.Store
	log    atomic.Pointer[store.Memory] // where the logs are
	down   atomic.Bool
	full   atomic.Bool  // appends fail
	hangs  atomic.Bool  // Append and Replicas, as where one of several servers does
	mute   atomic.Value // the id of a replica whose reports are lost
	ranges atomic.Int64
	hidden atomic.Int64 // how many of the last messages it has lost
	lag    atomic.Int64 // how long an answer of Range takes to arrive, in nanoseconds
	topLag atomic.Int64 // the same of Tops
	addLag atomic.Int64 // the same of Append
	tops   atomic.Int64 // how often Tops was called
	most   atomic.Int64 // for how many channels at once, at most
	mutes  atomic.Bool  // Tops hangs
	// appended has addLag pass after the work of Append, not before.
	appended bool
	ahead    atomic.Int64 // by how much the store's clock is wrong, in nanoseconds
}

func (s *faultyStore) err() error {
	if s.down.Load() {
		return fmt.Errorf("test: %w", store.ErrUnavailable)
	}
	return nil
}

func (s *faultyStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if err := s.err(); err != nil {
		return store.Position{}, false, err
	}
	if s.hangs.Load() {
		<-ctx.Done()
		return store.Position{}, false, ctx.Err()
	}
	if s.full.Load() {
		return store.Position{}, false, fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	if s.appended {
		pos, dup, err := s.log.Load().Append(ctx, ch, e, o)
		time.Sleep(time.Duration(s.addLag.Load()))
		return pos, dup, err
	}
	time.Sleep(time.Duration(s.addLag.Load()))
	return s.log.Load().Append(ctx, ch, e, o)
}

func (s *faultyStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	s.ranges.Add(1)
	if err := s.err(); err != nil {
		return store.Page{}, err
	}
	page, err := s.log.Load().Range(ctx, ch, q)
	page.Top.Offset -= uint64(s.hidden.Load())
	page.Entries = slices.DeleteFunc(page.Entries, func(e store.Entry) bool { return e.Offset > page.Top.Offset })
	time.Sleep(time.Duration(s.lag.Load())) // in the bubble: what is published meanwhile is not in the page
	return page, err
}

func (s *faultyStore) Tops(ctx context.Context, chs []string) ([]store.Position, error) {
	s.tops.Add(1)
	for most := s.most.Load(); int64(len(chs)) > most && !s.most.CompareAndSwap(most, int64(len(chs))); most = s.most.Load() {
	}
	if err := s.err(); err != nil {
		return nil, err
	}
	if s.mutes.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tops, err := s.log.Load().Tops(ctx, chs)
	for i := range tops {
		tops[i].Offset -= uint64(s.hidden.Load())
	}
	time.Sleep(time.Duration(s.topLag.Load()))
	return tops, err
}

func (s *faultyStore) Replicas(ctx context.Context) ([]store.Replica, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	if s.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	nodes, err := s.Store.Replicas(ctx)
	for i := range nodes {
		nodes[i].Seen = nodes[i].Seen.Add(time.Duration(s.ahead.Load()))
	}
	return nodes, err
}

func (s *faultyStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if m, _ := s.mute.Load().(string); m == r.Replica.ID {
		return true, nil
	}
	if err := s.err(); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

// subscriber collects what a Go subscriber gets.
type subscriber struct {
	sub *channels.Subscription

	mu     sync.Mutex
	got    []channels.Message
	resets []*channels.ResetError
	events []string // of both, in order: see story
	end    error
	done   chan struct{}
}

func (r *replicas) subscribe(i int, channel string, from *channels.Position) *subscriber {
	r.t.Helper()
	return subscribe(r.t, r.hubs[i], channel, from)
}

func subscribe(t *testing.T, h *channels.Hub, channel string, from *channels.Position) *subscriber {
	t.Helper()
	sub, err := h.Subscribe(context.Background(), channel, from)
	require.NoError(t, err)
	s := &subscriber{sub: sub, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for m, err := range sub.Messages() {
			s.mu.Lock()
			if reset, ok := err.(*channels.ResetError); ok {
				s.resets = append(s.resets, reset)
				s.events = append(s.events, fmt.Sprintf("%s@%d", reset.Reason, reset.Position.Offset))
			} else if err != nil {
				s.end = err
			} else {
				s.got = append(s.got, m)
				s.events = append(s.events, strconv.FormatUint(m.Position.Offset, 10))
			}
			s.mu.Unlock()
		}
	}()
	return s
}

// messages are what it has got so far.
func (s *subscriber) messages() []channels.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// close ends the subscription and returns what it got.
func (s *subscriber) close() []channels.Message {
	s.sub.Close()
	<-s.done
	return s.got
}

// wantAll wants the offsets first to last, each once and in order.
func wantAll(t *testing.T, got []channels.Message, first, last uint64) {
	t.Helper()
	for i, m := range got { // some hundred thousand of them, for which require.Equal takes seconds
		if m.Position.Offset != first+uint64(i) {
			require.Equal(t, first+uint64(i), m.Position.Offset, "message %d of %d", i, len(got))
		}
	}
	require.Len(t, got, int(last-first+1))
}

func sameMessage(a, b channels.Message) bool {
	return a.Position == b.Position && a.Header == b.Header && string(a.Body) == string(b.Body) && a.Time.Equal(b.Time)
}

func (r *replicas) publish(i int, channel string, n int) channels.Result {
	r.t.Helper()
	res, err := r.hubs[i].Publish(context.Background(), channel, channels.Message{Header: "n", Body: json.RawMessage(strconv.Itoa(n))})
	require.NoError(r.t, err)
	return res
}

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
		// Stored behind the hub's back: what a lost answer looks like.
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
		// Comes and goes on either replica, each time from where it was.
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

// TestAStoreThatLosesItsLastMessages is what a failover to a replica of the
// store can do: subscribers are told, and go on from what is left.
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

// TestALogThatIsLostWhileASubscriberCatchesUp resets that one too, once, and
// nothing of the old log follows the reset.
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

// Who begins at the beginning has missed nothing of a log that was lost and is
// not reborn yet, though others here have had messages of it.
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

// lose replaces the logs by nothing, as a restart without persistence does.
func lose(t *testing.T, r *replicas) {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	r.store.log.Store(m)
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

// Presence events come at most once. Where the mesh loses them, the list is right
// all the same, and nothing is sent afterwards.
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

// member subscribes a user by a stream, which presence shows.
func (r *replicas) member(i int, channel, user string) (leave func()) {
	ctx, cancel := context.WithCancel(channels.WithIdentity(context.Background(), channels.Identity{ID: user}))
	_, wait := r.open(ctx, i, channel)
	return func() {
		cancel()
		wait()
	}
}

// stream subscribes somebody by a stream, and returns what that one gets. It
// may be read when the stream has ended.
func (r *replicas) stream(i int, channel string) (got *httptest.ResponseRecorder, leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	got, wait := r.open(ctx, i, channel)
	return got, func() {
		cancel()
		wait()
	}
}

func (r *replicas) open(ctx context.Context, i int, channel string) (got *httptest.ResponseRecorder, wait func()) {
	req := httptest.NewRequestWithContext(ctx, "GET", "/channel/"+channel+"/", nil)
	req.Header.Set("Accept", "text/event-stream")
	got = httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.hubs[i].Handler().ServeHTTP(timelessRecorder{got}, req)
	}()
	return got, func() { <-done }
}

// timelessRecorder keeps what is written, at once.
type timelessRecorder struct{ *httptest.ResponseRecorder }

func (timelessRecorder) SetWriteDeadline(time.Time) error { return nil }

func TestAGapIsFilledWithFewReads(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		r.net.Cut("r0", "r1")
		for n := range 100 {
			r.publish(0, "c", n)
		}
		r.net.Heal()
		before := r.store.ranges.Load()
		r.publish(0, "c", 101)
		time.Sleep(time.Second)
		synctest.Wait()
		require.LessOrEqual(t, r.store.ranges.Load()-before, int64(2))
		wantAll(t, s.close(), 1, 102)
	})
}

func TestALateMessageNeedsNoRead(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Delay: 30 * time.Millisecond, Duplicate: 0.2})
		for n := range 100 {
			r.publish(0, "c", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.net.SetFaults(meshtest.Faults{Duplicate: 1, Delay: 30 * time.Millisecond})
		r.publish(0, "c", 100) // the last one comes twice
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Zero(t, r.store.ranges.Load())
		wantAll(t, s.close(), 1, 101)
	})
}
