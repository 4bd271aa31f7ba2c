package channels

import (
	"context"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/store"
)

// losses are the channels for which the mesh may have lost packets.
type losses struct {
	wake bell.Bell // something was added

	mu   sync.Mutex // guards lost
	lost lossList
}

type lossList struct {
	names map[string]struct{}
	all   bool // all channels; names is not used then
}

func (l *lossList) has(name string) bool {
	_, ok := l.names[name]
	return ok || l.all
}

// maxLosses bounds names. Beyond it, all channels are checked.
const maxLosses = 1024

// add takes a channel's name, or "" for all channels. It never waits.
func (l *losses) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == "" || len(l.lost.names) >= maxLosses {
		l.lost = lossList{all: true}
	} else if !l.lost.all {
		if l.lost.names == nil {
			l.lost.names = make(map[string]struct{})
		}
		l.lost.names[name] = struct{}{}
	}
	l.wake.Ring()
}

func (l *losses) take() lossList {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := l.lost
	l.lost = lossList{}
	return lost
}

// again has the next regular check treat all channels as lost, because this one
// has failed.
func (l *losses) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = lossList{all: true}
}

// lost notes that the mesh may have lost packets of a channel, or of all ("").
func (h *Hub) lost(name string) {
	if name != "" {
		ch := h.channels.use(name)
		if ch == nil {
			return
		}
		defer ch.release()
		if ch.opts.HistorySize == 0 {
			return // they cannot be fetched
		}
	}
	h.losses.add(name)
}

// topsPeriod is how often the channels' last positions are compared with the
// Store's. A message that is missing twice in a row is fetched, which keeps the
// promise of 5 s even if none follows it. If the mesh says that it has lost
// something, the Store is asked at once, and the message is fetched at once.
const topsPeriod = 1500 * time.Millisecond

// topsAtOnce bounds the channels of one call of the Store, so that the Store can
// answer others in between, however many channels there are.
const topsAtOnce = 4096

// idleTopsPeriod is how often tops are read if nobody else appends: naming a log
// keeps the Store from forgetting it.
const idleTopsPeriod = store.EmptyTTL / 3

// watchTops looks for messages that the mesh lost, or that others appended,
// until the hub is shut down.
func (h *Hub) watchTops() {
	period := topsPeriod
	if h.mesh == nil && h.ownsStore() {
		period = idleTopsPeriod
	}
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.compareTops(h.ctx, true)
		case <-h.losses.wake:
			begin := time.Now()
			h.compareTops(h.ctx, false)
			// The losses of a flood are checked together, and take at most half
			// of the Store's time for this replica.
			if !backoff.Pause(h.ctx, max(gapWait, time.Since(begin))) {
				return
			}
		}
	}
}

// compareTops looks for lost messages that no later message has revealed: in the
// channels that the mesh named, or in every channel that has both history and
// subscribers. It asks the Store for topsAtOnce channels at a time.
func (h *Hub) compareTops(ctx context.Context, every bool) {
	lost := h.losses.take()
	var chs []*channel
	var names []string
	var before []Position
	look := func(ch *channel) {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		o := &ch.order
		switch {
		case ch.opts.HistorySize == 0 || len(ch.subs) == 0 && o.waiting == 0:
		case o.synced:
			chs, names, before = append(chs, ch), append(names, ch.name), append(before, o.pos)
		case lost.has(ch.name):
			ch.fillLocked(toTop) // when the sync is over: it may have read the top too early
		}
	}
	if every || lost.all {
		h.channels.all(look)
	} else {
		for name := range lost.names {
			if ch := h.channels.use(name); ch != nil {
				look(ch)
				ch.release()
			}
		}
	}
	for len(names) > 0 {
		n := min(len(names), topsAtOnce)
		tops, err := h.tops(ctx, names[:n])
		if err != nil {
			h.warn.storeFails(err)
			if lost.all || len(lost.names) > 0 {
				h.losses.again()
			}
			return
		}
		for i, ch := range chs[:n] {
			ch.compareTop(before[i], Position(tops[i]), lost.has(ch.name))
		}
		chs, names, before = chs[n:], names[n:], before[n:]
	}
}

// compareTop starts a fill in three cases:
//   - The channel is behind what the Store had at the check before. A newer message
//     may still be under way.
//   - The mesh has lost something (lost), and the channel is behind what the Store has now.
//   - The Store has lost what the channel had before the Store was asked.
func (ch *channel) compareTop(before, top Position, lost bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	if !o.synced || top.Epoch == "" {
		return
	}
	behind := top.Epoch != o.pos.Epoch || top.Offset > o.pos.Offset
	again := o.seen.Epoch == top.Epoch && (top.Epoch != o.pos.Epoch || o.seen.Offset > o.pos.Offset)
	switch {
	case lost && behind, top.Epoch == before.Epoch && top.Offset < before.Offset:
		ch.fillLocked(toTop)
	case again:
		ch.env.lagged()
		ch.fillLocked(toTop)
	}
	if behind {
		o.noteGap()
	}
	o.seen = top
}
