package channels

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// An outbox is the bounded queue of what is to be written to one receiver.
// Any goroutine may send to it and nobody ever waits for the receiver.
//
// At most one goroutine at a time drains it: the one that scheduled speaks
// of. Whoever makes scheduled true calls the owner's wake, and the drainer makes it false
// when take finds nothing more.
type outbox struct {
	owner  receiver
	limit  int // in bytes, overhead included
	format format
	stats  *counters
	queued *atomic.Int64 // what waits in this outbox and some others; see frame.hold
	rest   time.Duration // how long the receiver has for what waits once the outbox has ended; 0 is for ever

	mu        sync.Mutex // guards the fields below
	q         []*frame   // q[head:] waits
	head      int
	bytes     int    // of what waits in q
	told      int    // what queued has of the queue itself, besides its frames
	disowned  bool   // queued has nothing of it
	pong      *frame // the newest one that waits; it goes first, and is not counted
	scheduled bool
	state     outboxState
	cause     error         // why it left the open state
	room      chan struct{} // not nil while somebody waits for room
	letGo     func()        // see whenOver
	cutoff    *time.Timer   // of rest
}

// errDribbled says that a receiver that was told to go has not taken the rest in time.
var errDribbled = errors.New("channels: the client did not take what was left for it in time")

// A receiver owns an outbox.
type receiver interface {
	wake()      // gets a drainer to work; called without the outbox's lock
	kill(error) // cuts the connection at once; may be repeated
}

type outboxState uint8

const (
	outboxOpen    outboxState = iota
	outboxClosing             // the last frame is queued or on its way
	outboxClosed              // nothing is written any more
)

// send queues a frame. Where there is no room, the policy decides.
func (o *outbox) send(f *frame, policy SlowPolicy) { o.put(f, policy, false) }

// put is send, and returns whether the frame waits now. With held, who calls has
// counted it for this outbox, and uncounts it where it does not wait.
func (o *outbox) put(f *frame, policy SlowPolicy, held bool) (queued bool) {
	o.mu.Lock()
	if o.state != outboxOpen {
		o.mu.Unlock()
		return false
	}
	switch {
	case f.pong:
		// In the place of one that waits: a flood of pings is answered once
		// (RFC 6455 section 5.5.3). It is no part of the queue, in which it
		// would have to be looked for, and pushes nothing out of it.
		o.pong = f
	case o.bytes == 0 || o.bytes+f.size() <= o.limit || o.makeRoomLocked(f, policy):
		if !held {
			f.hold(1, o.queued)
		}
		o.pushLocked(f)
		queued = true
	case policy != SlowClose && f.isEvent():
		o.stats.droppedBy(policy).Add(1) // it comes at most once, and is worth nobody's connection
	default:
		o.endLocked(farewell(ErrSlowSubscriber, closeTryAgain), ErrSlowSubscriber, true)
	}
	o.scheduleAndUnlock()
	return queued
}

// sendIfIdle queues a frame if nothing else waits, and reports whether it did.
func (o *outbox) sendIfIdle(f *frame) bool {
	o.mu.Lock()
	if o.state != outboxOpen || o.bytes > 0 {
		o.mu.Unlock()
		return false
	}
	o.pushAndUnlock(f)
	return true
}

// pushAndUnlock queues a frame.
func (o *outbox) pushAndUnlock(f *frame) {
	f.hold(1, o.queued)
	o.pushLocked(f)
	o.scheduleAndUnlock()
}

// scheduleAndUnlock gets a drainer to work where none is.
func (o *outbox) scheduleAndUnlock() {
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.wake()
	}
}

// pushLocked queues a frame that is counted.
func (o *outbox) pushLocked(f *frame) {
	if o.bytes > o.limit/2 && !o.stats.pressed.Load() {
		o.stats.pressed.Store(true)
	}
	if o.head > 0 && len(o.q) == cap(o.q) { // reuse the room at the front before growing
		n := copy(o.q, o.q[o.head:])
		clear(o.q[n:])
		o.q, o.head = o.q[:n], 0
	}
	o.q = append(o.q, f)
	o.bytes += f.size()
	o.tellLocked()
}

// releaseLocked uncounts a frame that waits no longer.
func (o *outbox) releaseLocked(f *frame) {
	o.bytes -= f.size()
	if !o.disowned {
		f.letGo(1, o.queued)
	}
}

// released gathers frames that wait no longer: a writer takes the same one out of
// many outboxes, one after the other, and processors are not to contend for it.
type released struct {
	f *frame
	n int
}

func (r *released) add(f *frame, sum *atomic.Int64) {
	if r.f != f {
		r.flush(sum)
		r.f = f
	}
	r.n++
}

func (r *released) flush(sum *atomic.Int64) {
	if r.f != nil {
		r.f.letGo(r.n, sum)
		*r = released{}
	}
}

// tellLocked tells the hub's sum of the queue itself, which frames do not share,
// in steps of some kilobytes: one message for each of many is no load.
func (o *outbox) tellLocked() {
	n := (len(o.q) - o.head) * slotBytes
	if d := n - o.told; (d >= countStep || d <= -countStep || n == 0 && d != 0) && !o.disowned {
		o.told = n
		o.queued.Add(int64(d))
	}
}

const (
	slotBytes = 16 // a pointer, and the room to grow
	countStep = 4 << 10
)

// makeRoomLocked drops what the policy allows to be dropped for f, and reports
// whether f now fits. A message replaces older ones of its channel. What is
// not a message (an event of presence, an answer of the hub's) pushes out
// events first, then older messages, and never a channel's newest.
func (o *outbox) makeRoomLocked(f *frame, policy SlowPolicy) bool {
	if policy == SlowClose {
		return false
	}
	size := f.size()
	// A quarter at a time, so that the work per message stays small where
	// each one would push another out.
	target := min(o.limit-size, o.limit*3/4)
	count := o.stats.droppedBy(policy)
	switch {
	case !f.isMessage():
		newest := make(map[*channel]*frame)
		for _, g := range o.q[o.head:] {
			if g.isMessage() {
				newest[g.ch] = g
			}
		}
		concerned := func(g *frame) bool { return g.ch != nil && (f.ch == nil || f.ch == g.ch) }
		o.dropLocked(target, count, func(g *frame) bool { return concerned(g) && g.isEvent() })
		o.dropLocked(target, count, func(g *frame) bool { return concerned(g) && newest[g.ch] != g })
	case policy == SlowKeepLatest:
		o.dropLocked(0, count, func(g *frame) bool { return g.ch == f.ch })
	default:
		o.dropLocked(target, count, func(g *frame) bool { return g.ch == f.ch })
	}
	return o.bytes == 0 || o.bytes+size <= o.limit
}

// isMessage tells what was published from an event of presence, and from what
// the hub says itself, which has no channel.
func (f *frame) isMessage() bool { return f.ch != nil && !f.isEvent() }

func (f *frame) isEvent() bool { return f.ch != nil && f.msg.Header == headerPresence }

// isPlace returns whether f only tells where a stream begins.
func (f *frame) isPlace() bool { return f.at != nil && f.head == 0 }

// droppedBy counts what a policy drops.
func (c *counters) droppedBy(policy SlowPolicy) *atomic.Int64 {
	if policy == SlowKeepLatest {
		return &c.superseded
	}
	return &c.dropped
}

// dropLocked drops the frames that drop chooses, the oldest first, until no
// more than target bytes wait.
func (o *outbox) dropLocked(target int, count *atomic.Int64, drop func(*frame) bool) {
	if o.bytes <= target {
		return
	}
	kept := o.q[o.head:o.head]
	dropped := 0
	for _, g := range o.q[o.head:] {
		if o.bytes > target && drop(g) {
			o.releaseLocked(g)
			dropped++
		} else {
			kept = append(kept, g)
		}
	}
	clear(o.q[o.head+len(kept):])
	o.q = o.q[:o.head+len(kept)]
	o.tellLocked()
	count.Add(int64(dropped))
}

// end queues the last frames and refuses everything after them. With drop,
// what waits is forgotten first. It does nothing after the first time.
func (o *outbox) end(last []*frame, cause error, drop bool) {
	o.mu.Lock()
	if o.state != outboxOpen {
		o.mu.Unlock()
		return
	}
	o.endLocked(last, cause, drop)
	o.scheduleAndUnlock()
}

func (o *outbox) endLocked(last []*frame, cause error, drop bool) {
	if drop {
		kept, waiting := o.q[:0], o.q[o.head:]
		if len(waiting) > 0 && waiting[0].isPlace() {
			kept = append(kept, waiting[0]) // without it, a browser would come back to what is then now
			waiting = waiting[1:]
		}
		for _, f := range waiting {
			o.releaseLocked(f)
		}
		clear(o.q[len(kept):])
		o.q, o.head, o.pong = kept, 0, nil
		o.tellLocked()
	}
	for _, f := range last {
		f.hold(1, o.queued)
		o.pushLocked(f)
	}
	if cause == ErrSlowSubscriber {
		o.stats.slow.Add(1)
	}
	o.state, o.cause = outboxClosing, cause
	if o.rest > 0 {
		// Each write is bounded by progress alone. Who takes a byte now and
		// then would stay for as long as the queue lasts.
		o.cutoff = time.AfterFunc(o.rest, func() { o.owner.kill(errDribbled) })
	}
	o.overLocked()
}

// abandon forgets everything, because nothing can be written any more.
func (o *outbox) abandon(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.abandonLocked(cause)
}

func (o *outbox) abandonLocked(cause error) {
	if o.cause == nil {
		o.cause = cause
	}
	for _, f := range o.q[o.head:] {
		o.releaseLocked(f)
	}
	o.q, o.head, o.pong = nil, 0, nil
	o.tellLocked()
	o.state = outboxClosed
	if o.cutoff != nil {
		o.cutoff.Stop()
	}
	o.overLocked()
}

// overLocked lets go who waits for this receiver: for room, or to let it in.
func (o *outbox) overLocked() {
	o.roomLocked()
	if o.letGo != nil {
		o.letGo()
	}
}

// whenOver has f called once the outbox takes nothing any more, at once where
// that is so already; nil ends it. f must not wait, nor call the outbox.
func (o *outbox) whenOver(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.letGo = f; f != nil && o.state != outboxOpen {
		f()
	}
}

// next returns the frame whose turn it is, for a receiver that takes one at a
// time, or nil: then the drainer's turn is over, and with over nothing more
// will come.
func (o *outbox) next() (f *frame, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.head == len(o.q) {
		o.scheduled = false
		return nil, o.state != outboxOpen
	}
	f = o.q[o.head]
	o.q[o.head] = nil
	o.head++
	o.releaseLocked(f)
	o.tookLocked()
	return f, false
}

// tookLocked follows each taking.
func (o *outbox) tookLocked() {
	o.tellLocked()
	if o.head == len(o.q) {
		o.q, o.head = o.q[:0], 0
		if cap(o.q) > 16 { // an idle connection keeps little
			o.q = nil
		}
	}
	if o.bytes <= o.limit/2 {
		o.roomLocked()
	}
}

// disown leaves what still waits to the receiver: the hub counts it no longer.
func (o *outbox) disown() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.disowned {
		return
	}
	for _, f := range o.q[o.head:] {
		f.letGo(1, o.queued)
	}
	o.queued.Add(-int64(o.told))
	o.told, o.disowned = 0, true
}

// take moves up to max bytes (at least one frame) into the empty slice to.
// r gets what waits no longer.
// Where it returns none, the drainer's turn is over: scheduled is false.
func (o *outbox) take(to []*frame, max int, r *released) []*frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pong != nil {
		to = append(to, o.pong)
		o.pong = nil
	}
	taken := 0
	for o.head < len(o.q) {
		f := o.q[o.head]
		n := f.size()
		if taken > 0 && taken+n > max {
			break
		}
		taken += n
		to = append(to, f)
		o.q[o.head] = nil
		o.head++
		o.bytes -= n
		if !o.disowned {
			r.add(f, o.queued)
		}
	}
	o.tookLocked()
	if len(to) == 0 {
		o.scheduled = false
	}
	return to
}

// takeOwn is take for a receiver that drains itself.
func (o *outbox) takeOwn(to []*frame) []*frame {
	var r released
	to = o.take(to, writeBytes, &r)
	r.flush(o.queued)
	return to
}

func (o *outbox) roomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// offer queues a frame if there is room for it, and reports whether it did:
// nothing is dropped for it and nobody is closed. Where the outbox takes
// nothing any more, it returns true, since to wait for room is of no use.
func (o *outbox) offer(f *frame) bool {
	o.mu.Lock()
	if o.state != outboxOpen {
		o.mu.Unlock()
		return true
	}
	if o.bytes > 0 && o.bytes+f.size() > o.limit {
		o.mu.Unlock()
		return false
	}
	o.pushAndUnlock(f)
	return true
}

// roomy tells whether a frame of size leaves half of the queue free.
func (o *outbox) roomy(size int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes == 0 || o.bytes+size <= o.limit/2 || o.state != outboxOpen
}

// waitRoom waits until at most half of the queue is in use and size more bytes
// fit, or the queue is empty, which takes a frame of any size. It returns
// false where the receiver, or ctx, ends first.
func (o *outbox) waitRoom(ctx context.Context, size int) bool {
	for {
		o.mu.Lock()
		if o.state != outboxOpen {
			o.mu.Unlock()
			return false
		}
		if o.bytes == 0 || o.bytes <= o.limit/2 && o.bytes+size <= o.limit {
			o.mu.Unlock()
			return true
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// ended returns whether the outbox takes nothing any more, and why.
func (o *outbox) ended() (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state != outboxOpen, o.cause
}
