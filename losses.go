package channels

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/channels-go/channels/store"
)

// losses are the channels of which the mesh may have lost packets.
type losses struct {
	wake chan struct{} // something was added; has room for one

	mu    sync.Mutex // guards the fields below
	names map[string]struct{}
	all   bool // then names says nothing
}

// maxLosses bounds the names that wait. Beyond it, all channels are looked at.
const maxLosses = 1024

// add takes a channel's name, or "" for all channels. It never waits.
func (l *losses) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == "" || len(l.names) >= maxLosses {
		l.names, l.all = nil, true
	} else if !l.all {
		if l.names == nil {
			l.names = make(map[string]struct{})
		}
		l.names[name] = struct{}{}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *losses) take() (names map[string]struct{}, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names, all = l.names, l.all
	l.names, l.all = nil, false
	return names, all
}

// again has the next regular look take all channels as lost, because this one
// has failed.
func (l *losses) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names, l.all = nil, true
}

func isLost(lost map[string]struct{}, all bool, name string) bool {
	_, ok := lost[name]
	return ok || all
}

// lost takes the mesh's word that packets may be lost.
func (h *Hub) lost(name string) {
	if name != "" {
		ch := h.channels.use(name)
		if ch == nil {
			return
		}
		defer ch.release()
		if ch.opts.HistorySize == 0 {
			return // nobody can bring them back
		}
	}
	h.losses.add(name)
}

// topsPeriod is how often tops are compared with the Store, where a mesh
// may have lost the last message: seen twice as missing, it is fetched,
// within the 5 s that are promised. Where the mesh says that it has lost
// something, it is looked for at once, and fetched where it is seen.
const topsPeriod = 1500 * time.Millisecond

// topsAtOnce bounds the channels of one call of the Store, which is to answer
// others between two of them, however many channels there are.
const topsAtOnce = 4096

// idleTopsPeriod is how often tops are read where nobody else appends: to name
// a log keeps the Store from forgetting it.
const idleTopsPeriod = store.MetaTTL / 24

// watchTops looks for messages that the mesh lost, or that others appended,
// until the hub is shut down.
func (h *Hub) watchTops() {
	period := topsPeriod
	if h.mesh == nil && h.owned {
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
			// A flood of losses is looked at together, and takes at most half
			// of the time that the Store has for this replica.
			if !pause(h.ctx, max(gapWait, time.Since(begin))) {
				return
			}
		}
	}
}

// compareTops looks for messages that a mesh has lost with none behind them:
// among the channels that the mesh named, or in every channel that has both
// history and subscribers. It asks the Store for topsAtOnce of them at a time.
func (h *Hub) compareTops(ctx context.Context, every bool) {
	lost, all := h.losses.take()
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
		case isLost(lost, all, ch.name):
			ch.fillLocked(toTop) // after the sync, which may have seen the top of before
		}
	}
	if every || all {
		h.channels.all(look)
	} else {
		for name := range lost {
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
			h.warnStore(err)
			if all || len(lost) > 0 {
				h.losses.again()
			}
			return
		}
		for i, ch := range chs[:n] {
			ch.compareTop(before[i], Position(tops[i]), isLost(lost, all, ch.name))
		}
		chs, names, before = chs[n:], names[n:], before[n:]
	}
}

// tops is one call of the Store.
func (h *Hub) tops(ctx context.Context, names []string) ([]store.Position, error) {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	var tops []store.Position
	err := h.guard("the store", func() (err error) {
		if tops, err = h.store.Tops(ctx, names); err == nil && len(tops) != len(names) {
			err = fmt.Errorf("the store gave %d tops for %d channels", len(tops), len(names))
		}
		for i := 0; i < len(tops) && err == nil; i++ {
			err = h.checkTop(names[i], tops[i])
		}
		return err
	})
	return tops, err
}

// compareTop starts a fill where the channel is behind what the Store had
// already when it was looked at the time before (a message that is under way
// needs no read) or, if the mesh has lost something, behind what it has now;
// and where the Store has lost what the channel had before it was asked.
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
		ch.hub.vitals.lag()
		ch.fillLocked(toTop)
	}
	if behind {
		o.noteGap()
	}
	o.seen = top
}
