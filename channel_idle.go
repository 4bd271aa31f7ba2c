package channels

import (
	"container/heap"
	"sync"
)

// idleChannels are the channels that may make way for others, ordered by when they
// were last published on. A channel is added when it is made and when its last
// subscriber leaves. Whether it has subscribers again, or was published on since,
// is checked when its turn comes, so that a publish costs nothing here.
type idleChannels struct {
	mu   sync.Mutex // guards the fields below, and each channel's place
	heap idleHeap
}

// add adds a channel that was last published on at a time, unless it is in already.
func (i *idleChannels) add(ch *channel, at int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ch.place == 0 {
		ch.since = at
		heap.Push(&i.heap, ch)
	}
}

func (i *idleChannels) remove(ch *channel) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ch.place > 0 {
		heap.Remove(&i.heap, ch.place-1)
	}
}

// take removes and returns the first channel, or nil, and the time that add got.
func (i *idleChannels) take() (ch *channel, at int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.heap) == 0 {
		return nil, 0
	}
	ch = heap.Pop(&i.heap).(*channel)
	return ch, ch.since
}

func (i *idleChannels) len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.heap)
}

// idleHeap is ordered by channel.since. A channel's place in it counts from 1.
type idleHeap []*channel

func (h idleHeap) Len() int           { return len(h) }
func (h idleHeap) Less(i, j int) bool { return h[i].since < h[j].since }
func (h idleHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
func (h *idleHeap) Push(x any) {
	ch := x.(*channel)
	*h = append(*h, ch)
	ch.place = len(*h)
}
func (h *idleHeap) Pop() any {
	last := len(*h) - 1
	ch := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	ch.place = 0
	return ch
}

// makeWay frees the channel that was published on longest ago among those without
// subscribers and callers at work. It returns false if there is none.
func (t *channelTable) makeWay(now int64) bool {
	for range t.idle.len() {
		if ch, at := t.idle.take(); ch == nil || t.evict(ch, at, now) {
			return ch != nil
		}
	}
	return false
}

// evict frees a channel that take returned, or adds it again if it may not go.
func (t *channelTable) evict(ch *channel, at, now int64) bool {
	s := t.shard(ch.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case ch.freed || len(ch.subs) > 0 || ch.order.waiting > 0: // it is added again when the last one leaves
		return false
	case ch.users.Load() > 0:
		t.idle.add(ch, now)
		return false
	case ch.published > at:
		t.idle.add(ch, ch.published)
		return false
	}
	t.forgetLocked(ch, s.m)
	ch.rate = rate{}
	if ch.reported != (numbers{}) {
		ch.touchLocked(dueNext) // so that the Store forgets its numbers
	}
	return true
}
