package channels

import (
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/pattern"
)

// MaxWatched is how many patterns WatchChannels takes in all.
const MaxWatched = 32 // each is a bit of channel.watched

// ChannelMetrics are the sums over the channels whose names a pattern matches. What has
// happened counts since WatchChannels was called.
type ChannelMetrics struct {
	Channels      int   // that this replica holds now
	Subscriptions int   // to them, now; without those to patterns
	Published     int64 // messages, through this replica
	Delivered     int64 // messages to subscribers of these channels on this replica, once for each
}

// WatchChannels has Metrics.Watched show the sums over the channels that each of the
// patterns matches; see [Hub.SubscribePattern] for what a pattern is. A pattern is
// watched as long as the hub lives. The errors are [ErrBadChannel], and [ErrTooLarge]
// beyond [MaxWatched] patterns; then none of them is new.
func (h *Hub) WatchChannels(patterns ...string) error {
	compiled := make([]*pattern.Pattern, len(patterns))
	for i, text := range patterns {
		var err error
		if compiled[i], err = compilePattern(text); err != nil {
			return err
		}
	}
	w := &h.channels.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append([]*watchedChannels(nil), w.read()...)
	known := make(map[string]bool, len(all))
	for _, c := range all {
		known[c.pattern.String()] = true
	}
	for _, p := range compiled {
		if !known[p.String()] {
			known[p.String()] = true
			all = append(all, &watchedChannels{pattern: p})
		}
	}
	if len(all) > MaxWatched {
		return ErrTooLarge.saying("a hub watches the channels of at most %d patterns, these would make %d", MaxWatched, len(all))
	}
	w.all.Store(&all)
	// A channel that is put into the table from now on finds them by itself.
	h.channels.all(func(ch *channel) {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		if !ch.freed {
			ch.watchLocked(all)
		}
	})
	return nil
}

// watched are the patterns of WatchChannels.
type watched struct {
	mu  sync.Mutex // held to change all; reading it needs no lock
	all atomic.Pointer[[]*watchedChannels]
}

// watchedChannels are those of one pattern.
type watchedChannels struct {
	pattern                 *pattern.Pattern
	channels, subscriptions atomic.Int64
	published, delivered    atomic.Int64
}

func (w *watched) read() []*watchedChannels {
	if all := w.all.Load(); all != nil {
		return *all
	}
	return nil
}

// metrics returns the sums by pattern.
func (w *watched) metrics() map[string]ChannelMetrics {
	all := w.read()
	sums := make(map[string]ChannelMetrics, len(all))
	for _, c := range all {
		sums[c.pattern.String()] = ChannelMetrics{int(c.channels.Load()), int(c.subscriptions.Load()), c.published.Load(), c.delivered.Load()}
	}
	return sums
}

// watchLocked counts the channel for the patterns that match and do not count it yet.
func (ch *channel) watchLocked(all []*watchedChannels) {
	for i, c := range all {
		if bit := uint32(1) << i; ch.watched&bit == 0 && c.pattern.Match(ch.name) {
			ch.watched |= bit
			c.channels.Add(1)
			c.subscriptions.Add(int64(len(ch.subs)))
		}
	}
}

// watchersLocked calls f for each pattern that counts the channel. Mostly there is none.
func (ch *channel) watchersLocked(f func(*watchedChannels)) {
	if ch.watched == 0 {
		return
	}
	for i, c := range ch.env.watched.read() {
		if ch.watched&(1<<i) != 0 {
			f(c)
		}
	}
}
