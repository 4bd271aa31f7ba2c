package channels

import (
	"context"
	"maps"
	"math"
	"time"

	"github.com/channels-go/channels/store"
)

// order puts the messages of a channel with history in the order of their
// offsets for all subscribers of this replica: what comes twice is dropped,
// what comes early waits, what is missing is fetched from the Store. It is at
// work while the channel has subscribers. channel.mu guards it.
type order struct {
	pos     Position      // of the last message that all subscribers got
	synced  bool          // pos is known
	syncing chan struct{} // closed when the sync under way ends
	waiting int           // subscribers that are about to attach

	early      map[uint64]*frame // by offset: messages after a gap
	earlyBytes int

	filling bool        // a goroutine fetches what is missing
	again   bool        // more was missed since it last looked
	goal    uint64      // up to which offset
	timer   *time.Timer // until a gap is filled
	gap     bool        // timer is set
	seen    Position    // the Store's top, when it was last looked at
}

const (
	// gapWait is how long a gap waits for the late message before the Store
	// is asked: within one process, or between replicas, it is usually there
	// within a millisecond.
	gapWait = 50 * time.Millisecond
	// maxEarly bounds the messages that wait behind a gap, as QueueBytes
	// does; what comes beyond it is fetched from the Store.
	maxEarly = 8192
	// rangeLimit is how many messages are read from the Store at a time, if
	// they fit into a quarter of a receiver's queue.
	rangeLimit = 128
)

func (o *order) rest() {
	if o.timer != nil {
		o.timer.Stop()
	}
	*o = order{filling: o.filling} // nobody waits for a sync: waiting is 0
}

// sync makes the channel's position known. The caller has counted itself in
// order.waiting, so that what arrives meanwhile is kept.
func (ch *channel) sync(ctx context.Context) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	for !o.synced {
		if running := o.syncing; running != nil {
			ch.mu.Unlock()
			select {
			case <-running:
			case <-ctx.Done():
			}
			ch.mu.Lock()
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		done := make(chan struct{})
		o.syncing = done
		ch.mu.Unlock()
		top, err := ch.top(ctx)
		ch.mu.Lock()
		o.syncing = nil
		close(done)
		if err != nil {
			return err
		}
		o.pos, o.synced = top, true
		ch.advanceLocked()
		if o.again { // more came meanwhile than is kept
			ch.fillLocked(0)
		}
	}
	return nil
}

// top asks the Store for the channel's last position. The mesh is asked for
// the channel first, so that nothing falls between the two.
func (ch *channel) top(ctx context.Context) (Position, error) {
	h := ch.hub
	if err := ch.listen(); err != nil {
		return Position{}, err
	}
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	var tops []store.Position
	err := h.guard("the store", func() (err error) {
		tops, err = h.store.Tops(ctx, []string{ch.name})
		return err
	})
	if err != nil {
		return Position{}, ErrStoreUnavailable.because(err)
	}
	return Position(tops[0]), nil
}

// arrive takes a message with a position, from here or from another replica,
// in any order and any number of times. It returns how many subscribers have
// got it or will get it.
func (ch *channel) arrive(f *frame) int {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	if len(ch.subs) == 0 && o.waiting == 0 {
		return 0
	}
	p := f.msg.Position
	if o.synced && o.pos.Epoch == "" {
		o.pos.Epoch = p.Epoch // the log was born after the sync
	}
	switch {
	case !o.synced:
		ch.keepLocked(f)
		return 0
	case o.pos.Epoch != p.Epoch:
		ch.fillLocked(toTop) // another life of the log, or a message of an earlier one: the Store knows
	case p.Offset <= o.pos.Offset:
		// They have it: it came twice, or a fill was faster.
	case p.Offset == o.pos.Offset+1:
		o.pos = p
		n := ch.fanOutLocked(f)
		ch.advanceLocked()
		return n
	default:
		ch.keepLocked(f)
		ch.awaitGapLocked()
	}
	return ch.receiversLocked(f)
}

// keepLocked keeps a message that came early, if there is room for it.
func (ch *channel) keepLocked(f *frame) {
	o := &ch.order
	offset := f.msg.Position.Offset
	switch {
	case o.early[offset] != nil:
	case len(o.early) >= maxEarly || o.earlyBytes+f.size() > ch.hub.opts.QueueBytes:
		ch.fillLocked(offset)
	default:
		if o.early == nil {
			o.early = make(map[uint64]*frame)
		}
		o.early[offset] = f
		o.earlyBytes += f.size()
	}
}

// advanceLocked passes on the early messages that now come next.
func (ch *channel) advanceLocked() {
	o := &ch.order
	for len(o.early) > 0 {
		f := o.early[o.pos.Offset+1]
		if f == nil {
			break
		}
		delete(o.early, o.pos.Offset+1)
		o.earlyBytes -= f.size()
		if f.msg.Position.Epoch != o.pos.Epoch && o.pos.Epoch != "" {
			continue // of another life of the log
		}
		o.pos = f.msg.Position
		ch.fanOutLocked(f)
	}
	for off, f := range o.early {
		if off <= o.pos.Offset {
			delete(o.early, off)
			o.earlyBytes -= f.size()
		}
	}
	switch {
	case len(o.early) > 0:
		ch.awaitGapLocked()
	case o.gap:
		o.gap = false
		o.timer.Stop()
	}
}

// awaitGapLocked gives a late message a moment before the Store is asked.
func (ch *channel) awaitGapLocked() {
	o := &ch.order
	if o.gap || o.filling {
		return
	}
	o.gap = true
	if o.timer == nil {
		o.timer = time.AfterFunc(gapWait, func() {
			ch.mu.Lock()
			defer ch.mu.Unlock()
			if ch.order.gap {
				ch.order.gap = false
				ch.fillLocked(ch.order.lastEarly())
			}
		})
		return
	}
	o.timer.Reset(gapWait)
}

// toTop is the goal of a fill of all that there is when it begins.
const toTop = math.MaxUint64

// fillLocked starts a goroutine that fetches what is missing up to an offset
// from the Store. It ends when that is done, nobody is subscribed, or the hub
// is shut down, which waits for it.
func (ch *channel) fillLocked(goal uint64) {
	o := &ch.order
	o.goal, o.again = max(o.goal, goal), true
	if !o.filling && o.synced {
		o.filling = ch.hub.background(ch.fill)
	}
}

func (ch *channel) fill() {
	backoff := newBackoff()
	var goal uint64 // what is behind it is on its way
	for {
		ch.mu.Lock()
		o := &ch.order
		if !o.synced {
			o.filling = false
			ch.mu.Unlock()
			return
		}
		from := o.pos
		before := maps.Clone(o.early)
		if o.again {
			goal, o.goal, o.again = o.goal, 0, false
		}
		ch.mu.Unlock()

		page, err := ch.read(ch.hub.ctx, from.Offset)
		if err != nil {
			ch.hub.warnStore(err)
			if !backoff.wait(ch.hub.ctx) {
				ch.mu.Lock()
				ch.order.filling = false
				ch.mu.Unlock()
				return
			}
			continue
		}
		backoff.reset()
		if goal == toTop && page.Top.Epoch == from.Epoch {
			goal = page.Top.Offset
		}
		if ch.merge(from, page, before, goal) {
			return
		}
	}
}

// lastEarly is the highest offset that waits behind a gap, or 0.
func (o *order) lastEarly() (last uint64) {
	for offset := range o.early {
		last = max(last, offset)
	}
	return last
}

// read reads the next part of the channel's history.
func (ch *channel) read(ctx context.Context, after uint64) (store.Page, error) {
	ctx, cancel := ch.hub.storeContext(ctx)
	defer cancel()
	return ch.hub.store.Range(ctx, ch.name, store.Query{After: after, Limit: rangeLimit, MaxBytes: ch.hub.opts.QueueBytes / 4})
}

// merge passes on what the Store had after from, up to the goal: what is
// behind it is on its way. It returns true, and marks the filling as over,
// where nothing is missing any more. What was there before the Store was
// asked, and is unknown to it, was lost there.
func (ch *channel) merge(from Position, page store.Page, before map[uint64]*frame, goal uint64) bool {
	frames := make([]*frame, len(page.Entries))
	for i := range frames {
		frames[i] = ch.encode(page.Top.Epoch, &page.Entries[i])
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	top := Position(page.Top)
	for off, f := range before {
		if o.early[off] == f && top.Epoch == f.msg.Position.Epoch && off > top.Offset {
			delete(o.early, off)
			o.earlyBytes -= f.size()
		}
	}
	switch {
	case !o.synced || o.pos.Epoch != from.Epoch && from.Epoch != "":
		// The subscribers have gone, or others have come.
	case top.Epoch == "":
		// The log is lost and not reborn yet: there is nothing to fetch.
		// What waits behind the gap was acknowledged, but cannot be ordered.
		o.early, o.earlyBytes = nil, 0
	case from.Epoch != "" && top.Epoch != from.Epoch:
		ch.resetLocked(resetEpoch, Position{top.Epoch, page.First - 1})
		return false // the page was read with another life's offset
	case top.Offset < from.Offset:
		ch.resetLocked(resetEpoch, top) // the Store has lost its last messages
		return false
	default:
		o.pos.Epoch = top.Epoch
		if page.First > o.pos.Offset+1 {
			ch.resetLocked(resetTrimmed, Position{top.Epoch, page.First - 1})
		}
		for _, f := range frames {
			if f.msg.Position.Offset != o.pos.Offset+1 || f.msg.Position.Offset > goal {
				continue
			}
			if early := o.early[f.msg.Position.Offset]; early != nil && early.msg.Position == f.msg.Position {
				f = early // the same, and it knows who is not to get it
			}
			o.pos = f.msg.Position
			ch.fanOutLocked(f)
		}
		ch.advanceLocked()
		if o.pos.Offset < min(goal, top.Offset) {
			return false
		}
	}
	if o.again && o.synced {
		return false
	}
	o.filling = false
	if len(o.early) > 0 {
		ch.awaitGapLocked()
	}
	return true
}

// encode makes the frame of an entry that was read.
func (ch *channel) encode(epoch string, e *store.Entry) *frame {
	m := fromEntry(epoch, e)
	m.Time = time.Time{} // as if it had come live
	return newMessageFrame(ch, m)
}

// The reasons of a reset.
const (
	resetEpoch     = "epoch"      // the history was lost and has begun anew
	resetTrimmed   = "trimmed"    // what was missed is no longer kept
	resetNoHistory = "no_history" // the channel keeps none
)

// resetLocked tells all subscribers that messages up to pos cannot be had.
func (ch *channel) resetLocked(reason string, pos Position) {
	o := &ch.order
	o.pos = pos
	o.goal, o.again = toTop, true // an offset of before says nothing
	for off, f := range o.early {
		if f.msg.Position.Epoch != pos.Epoch || off <= pos.Offset {
			delete(o.early, off)
			o.earlyBytes -= f.size()
		}
	}
	f := newResetFrame(reason, &pos)
	for _, s := range ch.subs {
		s.resetLocked(f) // who is catching up stops, since this is where it goes on
	}
}
