package channels

import (
	"maps"
	"math"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/store"
)

// rangeLimit is how many messages are read from the Store at a time, if they fit
// into a quarter of a receiver's queue.
const rangeLimit = 128

// toTop is the goal of a fill that fetches all that there is when it begins.
const toTop = math.MaxUint64

// fillLocked starts a goroutine that fetches from the Store what is missing up to
// an offset. It ends when that is done, when no subscriber is left, or when the
// hub is shut down, which waits for it.
func (ch *channel) fillLocked(goal uint64) {
	o := &ch.order
	o.goal, o.again = max(o.goal, goal), true
	if !o.filling && o.synced {
		o.filling = ch.env.tasks.Run(ch.fill)
	}
}

// A look is what a fill knew before it asked the Store. If the answer lacks one of
// the messages in early, the Store has lost it. The answer says nothing of messages
// that came later.
type look struct {
	read  uint64 // its number
	from  Position
	early map[Position]*frame
	goal  uint64 // messages after it are on their way
	lost  bool   // the Store has lost acknowledged messages after its top

	// What came of all looks so far:
	passed, fetched int  // messages that were passed on, and those of them that the Store had
	skipped         bool // subscribers were told that messages are lost
}

// The outcomes of a fill.
const (
	fillRepaired = "repaired"
	fillNothing  = "nothing"
	fillLost     = "lost"
)

func (l *look) outcome() string {
	switch {
	case l.skipped:
		return fillLost
	case l.passed > 0:
		return fillRepaired
	}
	return fillNothing
}

func (ch *channel) fill() {
	retry := backoff.New()
	began := time.Now()
	var l look
	for ch.beginFill(&l) {
		page, err := ch.read(ch.env.ctx, l.from.Offset)
		done, progress := false, false
		if err != nil {
			ch.env.storeFailed(err)
		} else {
			done, progress = ch.merge(&l, &page)
		}
		switch {
		case done:
			counts := ch.env.counts
			counts.fills.add(l.outcome())
			counts.filled.Add(int64(l.fetched))
			counts.fillTime.Add(time.Since(began))
			return
		case progress:
			retry.Reset()
		case !retry.Wait(ch.env.ctx):
			ch.mu.Lock()
			ch.order.filling = false
			ch.mu.Unlock()
			return
		}
	}
}

// beginFill takes what is to be fetched. It returns false if nobody wants it.
func (ch *channel) beginFill(l *look) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	if !o.synced {
		o.filling = false
		return false
	}
	o.reads++
	l.read, l.from, l.early = o.reads, o.pos, maps.Clone(o.early)
	if o.again {
		l.goal, o.goal, o.again = max(o.goal, l.goal), 0, false
	}
	return true
}

// merge passes on what the Store had, up to the goal. If nothing is missing any
// more, it marks the filling as over and returns done. Without progress, the next
// read should be made a little later.
func (ch *channel) merge(l *look, page *store.Page) (done, progress bool) {
	frames := make(map[uint64]*frame, len(page.Entries))
	for i := range page.Entries {
		e := &page.Entries[i]
		frames[e.Offset] = ch.encode(page.Top.Epoch, e)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	o := &ch.order
	top := Position(page.Top)
	if !o.synced || l.read <= o.stale || o.pos.Epoch != l.from.Epoch {
		return false, true // the subscribers have gone, or the log was born: it looks again
	}
	moved := false
	// l.from, not pos, was there before the Store was asked.
	if top.Epoch != "" && (top.Epoch != o.pos.Epoch || l.from.Offset > top.Offset) {
		ch.moveLocked(page, l.read)
		l.skipped = true
		l.goal, l.lost, moved, progress = toTop, false, true, true
	}
	if l.goal == toTop && top.Epoch != "" {
		l.goal = top.Offset
	}
	for p, f := range l.early {
		switch {
		case o.early[p] != f:
		case p.Epoch != o.pos.Epoch && top.Epoch == "":
			if o.pos.Epoch != "" {
				o.dropEarly(p) // its log is lost
			}
		case p.Epoch != o.pos.Epoch: // the Store would have known it
			o.retire(p.Epoch)
			o.dropEarly(p)
		case top.Epoch == p.Epoch && p.Offset > top.Offset:
			o.dropEarly(p)
			l.lost = !moved // unless moveLocked has just told the subscribers
		}
	}
	ch.regroupLocked(page, l.read)
	for ch.passNextLocked(l, frames, page) {
		progress = true
	}
	missing := o.pos.Offset < min(l.goal, top.Offset) && top.Epoch != "" // and can be read
	first, _ := o.bounds()                                               // of what waits in this epoch; 0 for none
	switch {
	case missing && trimmed(o.pos, page), first > 0 && (top.Epoch == "" || trimmed(o.pos, page)):
		o.noteGap()
		if wait := lateWait - time.Since(o.stuck); wait > 0 && !o.crowded(ch.env.queueBytes) {
			o.filling = false
			o.goal, o.again = max(o.goal, l.goal), true
			ch.awaitGapLocked(wait)
			return true, true
		}
		o.adopt()
		first, _ = o.bounds()
		if first == 0 || page.First > 0 && page.First < first {
			first = page.First
		}
		ch.skipLocked(first-1, resetTrimmed)
		l.skipped = true
		ch.advanceLocked()
		return false, true
	case missing:
		return false, progress
	case l.lost && o.pos == top: // nobody will ever get what came after it
		l.lost = false
		ch.skipLocked(top.Offset, resetEpoch)
		l.skipped = true
	}
	if o.again {
		return false, true
	}
	o.filling = false
	if len(o.early) > 0 {
		ch.awaitGapLocked(gapWait)
	}
	return true, true
}

// passNextLocked passes on the message that comes next, if it is there.
func (ch *channel) passNextLocked(l *look, frames map[uint64]*frame, page *store.Page) bool {
	o := &ch.order
	if f := o.early[o.pos.next()]; f != nil { // rather than the Store's, since it knows its sender
		ch.passLocked(f, true)
		l.passed++
		return true
	}
	f := frames[o.pos.Offset+1]
	if f == nil || o.pos.Epoch != page.Top.Epoch || o.pos.Offset+1 > l.goal {
		if f == nil && o.pos.Offset < l.goal && page.Top.Epoch != "" {
			o.noteGap()
		}
		return false
	}
	ch.passLocked(f, true)
	l.passed++
	l.fetched++
	return true
}

// regroupLocked has subscribers that are apart go on. It leaves alone those that
// went apart after this read began, and those that the page shows to be ahead of
// the channel.
func (ch *channel) regroupLocked(page *store.Page, read uint64) {
	pos, top := ch.order.pos, page.Top
	if top.Epoch == "" {
		return
	}
	resets := resetFrames{}
	for _, s := range ch.subs {
		own := s.own
		if own == nil || own == lost || own.reading || own.read >= read {
			continue
		}
		if ahead := own.at.Epoch == pos.Epoch && own.at.Offset >= pos.Offset && own.at.Offset <= top.Offset; !ahead {
			ch.goOnLocked(s, own.at, page, resets)
		}
	}
}

// adopt has a channel that came before its log was born go on in the log of the
// messages that wait. The Store no longer has that log.
func (o *order) adopt() {
	for p := range o.early {
		if o.pos.Epoch == "" {
			o.pos.Epoch = p.Epoch
		}
	}
}

// crowded reports whether there is little room for more early messages.
func (o *order) crowded(maxBytes int) bool {
	return len(o.early) > maxEarly/2 || o.earlyBytes > maxBytes/2
}
