package channels

import (
	"context"
	"slices"
	"time"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/store"
)

// order puts the messages of a channel with history in the order of their
// offsets for all subscribers of this replica. A message that comes twice is
// dropped, one that comes early waits, and one that is missing is fetched from the
// Store (channel_fill.go). It works while the channel has subscribers. channel.mu
// guards it. docs/positions.md has the model.
type order struct {
	waiting int      // subscribers that are about to attach
	pos     Position // of the last message that was passed on
	synced  bool     // pos is known
	syncing *syncing // the question for it that is under way
	past    []string // epochs that are over: a late message of one is dropped without a read

	early      map[Position]*frame // messages after a gap
	earlyBytes int
	stuck      time.Time // since when the message after pos is known to be missing; zero: it is not

	filling bool        // a goroutine fetches what is missing
	again   bool        // more was missed since it last looked
	goal    uint64      // up to which offset
	reads   uint64      // how often it has begun to look
	stale   uint64      // reads up to this number were for subscribers that have left; their answers are ignored
	timer   *time.Timer // until a gap is filled
	gap     bool        // timer is set
	seen    Position    // the Store's top, when it was last looked at
}

// syncing is one question for the Store's top, which all subscribers share that
// attach meanwhile.
type syncing struct {
	done chan struct{}
	err  error // valid when done is closed
}

const (
	// gapWait is how long a gap waits for the late message before the Store
	// is asked: within one process, or between replicas, it is usually there
	// within a millisecond.
	gapWait = 50 * time.Millisecond
	// lateWait is how long it waits if the Store no longer has the message
	// either. After it, subscribers get a reset.
	lateWait = time.Second
	// maxEarly bounds the messages that wait behind a gap, as QueueBytes
	// does. Those beyond it are fetched from the Store.
	maxEarly = 8192
	// maxPast bounds the past epochs that are remembered.
	maxPast = 8
)

// rest forgets everything except what running goroutines still need.
func (o *order) rest() {
	if o.timer != nil {
		o.timer.Stop()
	}
	*o = order{filling: o.filling, syncing: o.syncing, reads: o.reads, stale: o.reads}
}

// isSynced reports whether a subscriber can come without a question to the Store.
// With named, it needs an epoch: see sync.
func (ch *channel) isSynced(named bool) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.order.isSynced(named && ch.opts.HistorySize > 0)
}

func (o *order) isSynced(named bool) bool { return o.synced && !(named && o.pos.Epoch == "") }

// sync makes the channel's position known. With named, it has an epoch, even if
// nothing was published yet: the client protocol names it once, when a client
// subscribes, and the client needs it to recover. The caller has counted itself in
// order.waiting, so what arrives meanwhile is kept. Callers share one question,
// which has the Store's timeout and no caller's context.
func (ch *channel) sync(ctx context.Context, named bool) error {
	for {
		ch.mu.Lock()
		o := &ch.order
		if o.isSynced(named) {
			ch.mu.Unlock()
			return nil
		}
		q := o.syncing
		if q == nil {
			q = &syncing{done: make(chan struct{})}
			if !ch.env.tasks.Run(func() { ch.askTop(q, named) }) {
				ch.mu.Unlock()
				return ErrClosed
			}
			o.syncing = q
		}
		ch.mu.Unlock()
		select {
		case <-q.done: // it may have been a question without named
			if q.err != nil {
				return q.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askTop asks the Store for the channel's last position, for all callers that
// wait in sync. It is a task of the hub, and ends with the Store's answer.
func (ch *channel) askTop(q *syncing, named bool) {
	at, err := ch.top(named)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	defer close(q.done)
	o := &ch.order
	o.syncing = nil
	switch {
	case err != nil:
		q.err = ErrStoreUnavailable.because(err)
	case o.waiting == 0: // all have gone
	case !o.synced:
		ch.beginLocked(at)
	case o.pos == Position{}: // the log begins, or has begun meanwhile
		o.pos.Epoch = at.Epoch
		ch.advanceLocked()
		if at.Offset > 0 {
			ch.fillLocked(at.Offset)
		}
	}
}

// top asks the Store for the channel's last position. With named, a log that is not
// there begins, so that the position has an epoch.
func (ch *channel) top(named bool) (Position, error) {
	if named {
		at, err := ch.env.begin(ch.env.ctx, ch.name)
		return Position(at), err
	}
	tops, err := ch.env.tops(ch.env.ctx, []string{ch.name})
	if err != nil {
		return Position{}, err
	}
	return Position(tops[0]), nil
}

// beginLocked has the channel begin at a position.
func (ch *channel) beginLocked(at Position) {
	o := &ch.order
	o.pos, o.synced = at, true
	foreign := false
	for k := range o.early {
		switch {
		case k.Epoch != at.Epoch:
			foreign = true
		case k.Offset <= at.Offset:
			o.dropEarly(k)
		}
	}
	ch.advanceLocked()
	switch {
	case foreign: // the log has begun anew meanwhile, or the messages are late
		ch.fillLocked(toTop)
	case o.again: // more messages came meanwhile than are kept
		ch.fillLocked(0)
	}
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
	p := f.message.Position
	switch {
	case !o.synced:
		ch.keepLocked(f)
		return 0
	case p == o.pos.next(), p.Offset == 1 && o.pos == Position{}: // the log was born after the sync
		n := ch.passLocked(f, false)
		if len(o.early) > 0 || o.gap {
			ch.advanceLocked()
		}
		return n
	case p.Epoch == o.pos.Epoch && p.Offset <= o.pos.Offset, slices.Contains(o.past, p.Epoch):
		// The subscribers have it: it came twice, or a fill was faster. Or its
		// log is lost.
	case p.Epoch == o.pos.Epoch, o.pos == Position{}:
		ch.keepLocked(f)
		ch.awaitGapLocked(gapWait)
	default: // of another life of the log, or of an earlier one: the Store knows
		ch.keepLocked(f)
		ch.fillLocked(toTop)
	}
	return ch.receiversLocked(f)
}

// passLocked hands the next message to the subscribers. With paced, those that
// have no room go on by themselves, since it is one of many that come at once.
func (ch *channel) passLocked(f *frame, paced bool) int {
	o := &ch.order
	before := o.pos
	o.pos, o.stuck = f.message.Position, time.Time{}
	if len(o.early) > 0 {
		o.dropEarly(o.pos) // it came twice
	}
	return ch.fanOutLocked(f, paced, before)
}

// keepLocked keeps a message that came early, if there is room for it.
func (ch *channel) keepLocked(f *frame) {
	o := &ch.order
	p := f.message.Position
	switch {
	case o.early[p] != nil:
	case len(o.early) >= maxEarly || o.earlyBytes+f.Size() > ch.env.queueBytes:
		ch.fillLocked(p.Offset)
	default:
		if o.early == nil {
			o.early = make(map[Position]*frame)
		}
		o.early[p] = f
		o.earlyBytes += f.Size()
	}
}

func (o *order) dropEarly(p Position) {
	if f := o.early[p]; f != nil {
		o.earlyBytes -= f.Size()
		delete(o.early, p)
	}
}

// bounds returns the lowest and the highest offset of the present epoch that
// wait behind a gap, or 0 if none does.
func (o *order) bounds() (first, last uint64) {
	for p := range o.early {
		if p.Epoch != o.pos.Epoch && o.pos.Epoch != "" {
			continue
		}
		if first == 0 || p.Offset < first {
			first = p.Offset
		}
		last = max(last, p.Offset)
	}
	return first, last
}

// advanceLocked passes on the early messages that now come next.
func (ch *channel) advanceLocked() {
	o := &ch.order
	for len(o.early) > 0 {
		f := o.early[o.pos.next()]
		if f == nil {
			ch.awaitGapLocked(gapWait)
			return
		}
		ch.passLocked(f, true)
	}
	if o.gap {
		o.gap = false
		o.timer.Stop()
	}
}

// awaitGapLocked gives a late message a moment before the Store is asked.
func (ch *channel) awaitGapLocked(d time.Duration) {
	o := &ch.order
	if o.gap || o.filling {
		return
	}
	o.noteGap()
	o.gap = true
	if o.timer == nil {
		o.timer = time.AfterFunc(d, ch.gapEnds)
	} else {
		o.timer.Reset(d)
	}
}

func (ch *channel) gapEnds() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if o := &ch.order; o.gap {
		o.gap = false
		_, last := o.bounds()
		ch.fillLocked(last)
	}
}

// noteGap notes that the message after pos is missing.
func (o *order) noteGap() {
	if o.stuck.IsZero() {
		o.stuck = time.Now()
	}
}

// retire notes that an epoch is over, or is not the log's.
func (o *order) retire(epoch string) {
	if epoch == "" || epoch == o.pos.Epoch || slices.Contains(o.past, epoch) {
		return
	}
	if len(o.past) >= maxPast {
		o.past = slices.Delete(o.past, 0, 1)
	}
	o.past = append(o.past, epoch)
}

// revive notes that an epoch is the log's after all: the latest read decides.
func (o *order) revive(epoch string) {
	o.past = slices.DeleteFunc(o.past, func(e string) bool { return e == epoch })
}

// moveLocked has the channel go on in the log of a page. It is another log than
// the channel's, or one that ends before the channel's position. Each subscriber
// goes on from its own position. read is the number of the read that brought the
// page.
func (ch *channel) moveLocked(page *store.Page, read uint64) {
	o := &ch.order
	old := o.pos
	o.pos, _, _ = goOn(old, page)
	o.stuck = time.Time{}
	o.revive(o.pos.Epoch)
	o.retire(old.Epoch)
	for _, e := range page.Earlier {
		o.retire(e.Epoch)
	}
	for p := range o.early {
		if p.Epoch == o.pos.Epoch && p.Offset <= o.pos.Offset || slices.Contains(o.past, p.Epoch) {
			o.dropEarly(p)
		}
	}
	resets := resetFrames{}
	for _, s := range ch.subs {
		switch own := s.own; {
		case own == nil:
			ch.goOnLocked(s, old, page, resets)
		case own == lost:
		case own.reading:
			own.cut(o.pos) // it finds out by its next read
		case own.read < read:
			ch.goOnLocked(s, own.at, page, resets)
		}
	}
}

// goOnLocked has a subscriber that is at a position go on in the log of a page.
func (ch *channel) goOnLocked(s *subscription, at Position, page *store.Page, resets resetFrames) {
	to, reason, _ := goOn(at, page)
	if reason == "" || s.resetLocked(resets.at(ch, to, reason)) {
		ch.placeLocked(s, to)
	}
}

// skipLocked has the channel go on behind messages that are lost. It tells those
// subscribers that have not got them in another way.
func (ch *channel) skipLocked(to uint64, reason string) {
	o := &ch.order
	o.pos.Offset, o.stuck = to, time.Time{}
	for p := range o.early {
		if p.Epoch == o.pos.Epoch && p.Offset <= to {
			o.dropEarly(p)
		}
	}
	resets := resetFrames{}
	for _, s := range ch.subs {
		switch own := s.own; {
		case own == nil:
		case own == lost:
			continue
		case own.reading:
			own.cut(o.pos)
			continue
		case own.at.Epoch != o.pos.Epoch || own.at.Offset > to:
			continue
		case own.at.Offset == to:
			s.own = nil
			continue
		}
		s.own = nil
		s.resetLocked(resets.at(ch, o.pos, reason))
	}
}

// resetFrames makes each reset once for all subscribers that get it.
type resetFrames map[resetAt]*fanout.Frame

type resetAt struct {
	Position
	reason string
}

func (r resetFrames) at(ch *channel, pos Position, reason string) *fanout.Frame {
	k := resetAt{pos, reason}
	f := r[k]
	if f == nil {
		f = newResetFrame(ch.name, reason, &pos)
		r[k] = f
	}
	return f
}
