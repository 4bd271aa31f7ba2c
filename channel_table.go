package channels

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// channelTable holds the channels of this replica. Its shards keep callers
// of different channels apart. There are no more than the processors call for, so that
// the heads of their maps stay in a cache while publishes go round many channels.
type channelTable struct {
	n       atomic.Int64 // channels
	idle    idleChannels
	watched watched
	shards  []shard // a power of two of them
}

type shard struct {
	mu sync.RWMutex
	m  map[string]*channel
	_  [32]byte // keeps neighbours off one cache line
}

func (t *channelTable) init() {
	n := min(8*runtime.GOMAXPROCS(0), 256)
	t.shards = make([]shard, 1<<bits.Len(uint(n-1)))
}

var shardSeed = maphash.MakeSeed()

func (t *channelTable) shard(name string) *shard {
	return &t.shards[maphash.String(shardSeed, name)&uint64(len(t.shards)-1)]
}

// use returns the channel and keeps it until release. It returns nil if there is
// no such channel.
func (t *channelTable) use(name string) *channel {
	s := t.shard(name)
	s.mu.RLock()
	defer s.mu.RUnlock()
	ch := s.m[name]
	if ch != nil {
		ch.users.Add(1) // under the shard's lock, since free takes the write lock
	}
	return ch
}

// put adds a channel in use, or returns the one that is there already.
func (t *channelTable) put(ch *channel) *channel {
	s := t.shard(ch.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.m[ch.name]; old != nil {
		old.users.Add(1)
		return old
	}
	if s.m == nil {
		s.m = make(map[string]*channel)
	}
	ch.users.Store(1)
	s.m[ch.keyLocked()] = ch
	t.n.Add(1)
	ch.mu.Lock()
	ch.published = ch.env.clock.uptime()
	t.idle.add(ch, ch.published)
	ch.touchLocked(dueNext) // so that it is freed if nothing comes of it
	ch.watchLocked(t.watched.read())
	ch.mu.Unlock()
	return ch
}

// keyLocked returns the channel's name for the map of its shard, which is locked: once,
// before the channel is in it. A name of up to 32 bytes, as most are, stands in the channel
// itself: whoever looks for it has then fetched the channel as well. Only the map may keep
// this string, since it keeps the whole channel in memory.
func (ch *channel) keyLocked() string {
	if len(ch.name) > len(ch.key) {
		return ch.name
	}
	return unsafe.String(&ch.key[0], copy(ch.key[:], ch.name))
}

// free removes the channel if nothing needs it, and reports whether it did.
func (t *channelTable) free(ch *channel) bool {
	s := t.shard(ch.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.freed || ch.users.Load() > 0 || len(ch.subs) > 0 || ch.rate.total > 0 || ch.due != notDue || ch.order.waiting > 0 {
		return false
	}
	t.forgetLocked(ch, s.m)
	return true
}

// forgetLocked takes a channel out of its shard; both are locked.
func (t *channelTable) forgetLocked(ch *channel, shard map[string]*channel) {
	ch.freed = true
	ch.watchersLocked(func(c *watchedChannels) { c.channels.Add(-1) })
	delete(shard, ch.name)
	t.n.Add(-1)
	t.idle.remove(ch)
}

// all calls f for every channel, with no lock held.
func (t *channelTable) all(f func(*channel)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		chs := slices.AppendSeq(make([]*channel, 0, len(s.m)), maps.Values(s.m))
		s.mu.RUnlock()
		for _, ch := range chs {
			f(ch)
		}
	}
}

// use returns a channel, new if it was not there, and keeps it until release.
// A trusted caller gets one even if there are too many.
func (h *Hub) use(name string, trusted bool) (*channel, error) {
	if ch := h.channels.use(name); ch != nil {
		return ch, nil
	}
	ch, err := h.newChannel(name)
	if err != nil {
		return nil, err
	}
	kept, err := h.put(ch)
	if err != nil && trusted {
		return h.channels.put(ch), nil
	}
	return kept, err
}

// put adds a new channel to the table, or returns the one that was added before
// it. The channel is in use until release. If the table is full, the channel
// without subscribers that was published on longest ago makes way.
func (h *Hub) put(ch *channel) (*channel, error) {
	if int(h.channels.n.Load()) >= h.opts.MaxChannels && !h.channels.makeWay(h.uptime()) {
		return nil, ErrTooManyChannels
	}
	return h.channels.put(ch), nil
}

// optionsOf returns a channel's options. It adds no channel.
func (h *Hub) optionsOf(name string) (ChannelOptions, error) {
	ch := h.channels.use(name)
	if ch != nil {
		defer ch.release()
		return ch.opts, nil
	}
	ch, err := h.newChannel(name)
	if err != nil {
		return ChannelOptions{}, err
	}
	return ch.opts, nil
}

// optionsFor asks the app for the options of a channel, or of a pattern.
func (h *Hub) optionsFor(name string) (opts ChannelOptions, err error) {
	if err := h.guard("Options.Channel", func() error { opts = h.opts.Channel(name); return nil }); err != nil {
		return opts, err
	}
	if err := opts.check(h.opts.MaxMessageBytes); err != nil {
		h.log.Error("Options.Channel gave contradictory options, so the channel cannot be used", "channel", name, "err", err)
		return opts, ErrInternal.because(fmt.Errorf("channel %q: %w", name, err))
	}
	return opts, nil
}

func (h *Hub) newChannel(name string) (*channel, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	opts, err := h.optionsFor(name)
	if err != nil {
		return nil, err
	}
	ch := &channel{env: h.env, name: strings.Clone(name), opts: opts, group: h.fan.Group()}
	if ch.opts.Presence != PresenceOff {
		ch.members = make(map[string]Member)
	}
	if ch.opts.PresenceBy == PresenceByUser {
		ch.people = make(map[string]*person)
		h.holds.begin()
	}
	return ch, nil
}
