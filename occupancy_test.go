package channels_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// feeders notes which replicas feed which channels, as OnOccupied and OnVacated say.
type feeders struct {
	t *testing.T

	mu      sync.Mutex
	calls   []string            // "r0 occupied c"
	feeds   map[string][]string // the replicas that feed a channel
	overlap []string            // channels that two replicas have fed at the same time
	ends    map[string]context.Context
}

func newFeeders(t *testing.T) *feeders {
	return &feeders{t: t, feeds: map[string][]string{}, ends: map[string]context.Context{}}
}

// hooks give a replica the hooks.
func (f *feeders) hooks(i int, o *channels.Options) {
	id := fmt.Sprint("r", i)
	o.OnOccupied = func(ctx context.Context, channel string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, id+" occupied "+channel)
		if slices.Contains(f.feeds[channel], id) || ctx.Err() != nil {
			f.t.Errorf("%s is occupied twice, or with an ended context", channel)
		}
		if f.feeds[channel] = append(f.feeds[channel], id); len(f.feeds[channel]) > 1 {
			f.overlap = append(f.overlap, channel)
		}
		f.ends[id+channel] = ctx
	}
	o.OnVacated = func(ctx context.Context, channel string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, id+" vacated "+channel)
		i := slices.Index(f.feeds[channel], id)
		if i < 0 {
			f.t.Errorf("%s is vacated, but was not occupied", channel)
			return
		}
		f.feeds[channel] = slices.Delete(f.feeds[channel], i, i+1)
		if f.ends[id+channel].Err() == nil {
			f.t.Errorf("%s: the context of OnOccupied goes on", channel)
		}
	}
}

// want wants these calls since the last time, and no others.
func (f *feeders) want(calls ...string) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Equal(f.t, append([]string{}, calls...), append([]string{}, f.calls...))
	f.calls = nil
}

// of are the replicas that feed a channel.
func (f *feeders) of(channel string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.feeds[channel])
}

func TestOneReplicaFeedsAnOccupiedChannel(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 3, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(8 * time.Second)
		first := r.member(1, "c", "ann")
		settle(100 * time.Millisecond)
		f.want("r1 occupied c")
		tab, near, far := r.member(1, "c", ""), r.member(0, "c", ""), r.member(2, "c", "")
		settle(5 * time.Second)
		f.want()
		first()
		tab()
		settle(5 * time.Second)
		f.want() // the others are still there
		near()
		settle(5 * time.Second)
		f.want()
		for range 3 { // the last one reloads
			far()
			settle(1500 * time.Millisecond)
			far = r.member(2, "c", "")
			settle(5 * time.Second)
		}
		f.want()
		far()
		settle(time.Second)
		f.want()
		settle(4 * time.Second)
		f.want("r1 vacated c")
		again := r.member(2, "c", "")
		settle(time.Second)
		f.want("r2 occupied c")
		again()
		settle(5 * time.Second)
		f.want("r2 vacated c")
		for _, h := range r.hubs {
			_, holds := channels.Waits(h)
			require.Zero(t, holds)
		}
	}, f.hooks)
	require.Empty(t, f.overlap)
}

// What feeds a channel, and who is subscribed to a pattern, does not occupy it.
func TestOnlyConnectionsOccupy(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 1, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(2 * time.Second)
		r.subscribe(0, "c", nil)
		p, err := r.hubs[0].SubscribePattern(context.Background(), "c*")
		require.NoError(t, err)
		defer p.Close()
		settle(5 * time.Second)
		f.want()
		leave := r.member(0, "c", "")
		settle(time.Second)
		f.want("r0 occupied c")
		leave()
		settle(5 * time.Second)
		f.want("r0 vacated c")
	}, f.hooks)
}

// If the replica that feeds a channel dies, another one with subscribers goes on.
func TestAnotherReplicaFeedsForADeadOne(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 3, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(8 * time.Second)
		defer r.member(0, "c", "")()
		defer r.member(0, "alone", "")()
		settle(time.Second)
		defer r.member(1, "c", "")()
		settle(2 * time.Second)
		require.Equal(t, []string{"r0"}, f.of("c"))
		f.mu.Lock()
		f.calls = nil
		f.mu.Unlock()
		r.store.mute.Store("r0")
		r.meshes[0].mute.Store(true)
		settle(9 * time.Second)
		f.want()
		settle(4 * time.Second)
		f.want("r1 occupied c")
		r.store.mute.Store("") // it was only away, and hears that it is not the owner any more
		r.meshes[0].mute.Store(false)
		settle(3 * time.Second)
		f.want("r0 vacated c")
		require.Equal(t, []string{"r0"}, f.of("alone"), "nobody else was there")
	}, f.hooks)
}

// A replica that drains or shuts down hands over what it feeds, and two never feed a
// channel at the same time.
func TestADrainHandsOverWhatItFeeds(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 3, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(8 * time.Second)
		stays := r.member(0, "c", "")
		settle(time.Second)
		defer r.member(2, "c", "")()
		moves := r.member(0, "d", "")
		settle(time.Second)
		f.want("r0 occupied c", "r0 occupied d")
		done := background(func() error { return r.hubs[0].Drain(context.Background()) })
		settle(3 * time.Second)
		require.Equal(t, []string{"r2"}, f.of("c"))
		stays()
		moves()
		require.NoError(t, <-done)
		defer r.member(1, "d", "")()
		settle(3 * time.Second)
		require.Equal(t, []string{"r1"}, f.of("d"))
		require.NoError(t, r.hubs[0].Shutdown(context.Background()))

		defer r.member(1, "c", "")()
		last := r.member(2, "e", "")
		settle(3 * time.Second)
		done = background(func() error { return r.hubs[2].Shutdown(context.Background()) }) // without a drain
		last()
		require.NoError(t, <-done)
		settle(3 * time.Second)
		require.Equal(t, []string{"r1"}, f.of("c"))
		require.Empty(t, f.of("e"), "Shutdown has called OnVacated")
	}, f.hooks)
	require.Empty(t, f.overlap)
	require.Empty(t, f.of("c"))
	require.Empty(t, f.of("d"))
}

// While the Store is down, all stays as it is. Then it heals.
func TestFeedsWhileTheStoreIsDown(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 2, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(8 * time.Second)
		old, goes := r.member(0, "old", ""), r.member(1, "goes", "")
		settle(time.Second)
		defer r.member(1, "old", "")()
		settle(time.Second)
		require.Equal(t, []string{"r0"}, f.of("old"))
		f.mu.Lock()
		f.calls = nil
		f.mu.Unlock()
		r.store.down.Store(true)
		goes()
		passes := r.member(0, "passes", "")
		defer r.member(0, "new", "")()
		settle(30 * time.Second)
		passes()
		f.want()
		r.store.down.Store(false)
		settle(10 * time.Second)
		require.Equal(t, []string{"r0"}, f.of("new"))
		require.Equal(t, []string{"r0"}, f.of("old"))
		require.Empty(t, f.of("goes"))
		f.mu.Lock()
		require.Len(t, f.calls, 2)
		f.mu.Unlock()
		for range 2 {
			r.store.unheard.Store(true)
			old()
			settle(5 * time.Second)
			r.store.unheard.Store(false)
			settle(5 * time.Second)
			require.Len(t, f.of("old"), 1)
			old = r.member(0, "old", "")
			settle(5 * time.Second)
			require.Len(t, f.of("old"), 1)
		}
		old()
	}, f.hooks)
	require.Empty(t, f.overlap)
}

// Whoever comes and goes, and whichever replica drains: the calls for a channel never
// overlap, and in the end a channel is fed if it has subscribers.
func TestFeedsFollowTheSubscribers(t *testing.T) {
	f := newFeeders(t)
	inBubble(t, 3, every(channels.ChannelOptions{}), func(r *replicas) {
		settle(8 * time.Second)
		random := rand.New(rand.NewPCG(3, 4))
		type member struct {
			channel string
			leave   func()
		}
		var members []member
		for range 500 {
			if n := len(members); n > 0 && random.IntN(9) < 5 {
				i := random.IntN(n)
				members[i].leave()
				members = slices.Delete(members, i, i+1)
			} else {
				c := fmt.Sprint("c", random.IntN(5))
				members = append(members, member{c, r.member(random.IntN(3), c, "")})
			}
			settle(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
		settle(10 * time.Second)
		for i := range 5 {
			c := fmt.Sprint("c", i)
			has := slices.ContainsFunc(members, func(m member) bool { return m.channel == c })
			require.Equal(t, has, len(f.of(c)) == 1, c)
		}
		for _, m := range members {
			m.leave()
		}
		settle(10 * time.Second)
		for i := range 5 {
			require.Empty(t, f.of(fmt.Sprint("c", i)))
		}
	}, f.hooks)
	require.Empty(t, f.overlap)
}

// A hook that panics or takes long holds nobody up but its own channel, and Shutdown
// waits for it.
func TestHooksOfOccupancyThatPanicOrTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var occupied, vacated atomic.Int64
		slow := make(chan struct{})
		hub := newHub(t, channels.Options{
			OnOccupied: func(_ context.Context, channel string) {
				switch channel {
				case "panics":
					panic("test")
				case "slow":
					<-slow
				}
				occupied.Add(1)
			},
			OnVacated: func(_ context.Context, channel string) {
				if vacated.Add(1); channel == "panics" {
					panic("test")
				}
			},
		})
		r := &replicas{t: t, hubs: []*channels.Hub{hub}}
		var leaves []func()
		for i := range 100 {
			leaves = append(leaves, r.member(0, fmt.Sprint("c", i), ""))
		}
		leaves = append(leaves, r.member(0, "slow", ""), r.member(0, "panics", ""))
		settle(time.Second)
		require.EqualValues(t, 100, occupied.Load())
		done := background(func() error { return hub.Shutdown(context.Background()) })
		for _, leave := range leaves {
			leave()
		}
		settle(time.Second)
		require.EqualValues(t, 101, vacated.Load(), "all but the slow one")
		require.Empty(t, done)
		close(slow)
		require.NoError(t, <-done)
		require.EqualValues(t, 102, vacated.Load(), "what was occupied is vacated")
	})
}
