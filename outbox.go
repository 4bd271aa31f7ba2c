package channels

import (
	"context"
	"sync"
	"sync/atomic"
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
	queued *atomic.Int64 // what waits in this outbox and some others

	mu        sync.Mutex // guards the fields below
	q         []*frame   // q[head:] waits
	head      int
	bytes     int
	told      int    // of bytes, what queued has
	pong      *frame // the newest one that waits; it goes first
	scheduled bool
	state     outboxState
	cause     error         // why it left the open state
	room      chan struct{} // not nil while somebody waits for room
}

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
func (o *outbox) send(f *frame, policy SlowPolicy) {
	o.mu.Lock()
	if o.state != outboxOpen {
		o.mu.Unlock()
		return
	}
	if f.pong {
		o.pongLocked(f)
	} else if size := f.size(); o.bytes+size > o.limit && o.bytes > 0 && !o.makeRoomLocked(f, size, policy) {
		o.endLocked(farewell(ErrSlowSubscriber, closeTryAgain), ErrSlowSubscriber, true)
	} else {
		o.pushLocked(f)
	}
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.wake()
	}
}

// sendIfIdle queues a frame if nothing else waits, and reports whether it did.
func (o *outbox) sendIfIdle(f *frame) bool {
	o.mu.Lock()
	if o.state != outboxOpen || o.bytes > 0 {
		o.mu.Unlock()
		return false
	}
	o.pushLocked(f)
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.wake()
	}
	return true
}

// pongLocked puts a pong in the place of one that waits: a flood of pings is
// answered once (RFC 6455 section 5.5.3). It is no part of the queue, in which
// it would have to be looked for.
func (o *outbox) pongLocked(f *frame) {
	if o.pong != nil {
		o.countLocked(-o.pong.size())
	}
	o.pong = f
	o.countLocked(f.size())
}

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
	o.countLocked(f.size())
}

// countLocked notes that n bytes more wait. The hub's sum is only told of
// every few kilobytes: one message for each of many is no load.
func (o *outbox) countLocked(n int) {
	o.bytes += n
	if d := o.bytes - o.told; d >= countStep || d <= -countStep || o.bytes == 0 && d != 0 {
		o.told = o.bytes
		o.queued.Add(int64(d))
	}
}

const countStep = 4 << 10

// makeRoomLocked drops messages of f's channel, or for what the hub says
// itself of any, and reports whether f now fits.
func (o *outbox) makeRoomLocked(f *frame, size int, policy SlowPolicy) bool {
	if policy == SlowClose {
		return false
	}
	target := o.limit - size
	if policy == SlowDropOldest || f.ch == nil { // f.ch is nil: f is not the newest message, which has to stay
		// A quarter at a time, so that the work per message stays small
		// where each one would push another out.
		target = min(target, o.limit*3/4)
	} else {
		target = 0
	}
	kept := o.q[o.head:o.head]
	dropped := 0
	for _, g := range o.q[o.head:] {
		if g.ch != nil && (g.ch == f.ch || f.ch == nil) && o.bytes > target {
			o.countLocked(-g.size())
			dropped++
		} else {
			kept = append(kept, g)
		}
	}
	clear(o.q[o.head+len(kept):])
	o.q = o.q[:o.head+len(kept)]
	count := &o.stats.dropped
	if policy == SlowKeepLatest && f.ch != nil {
		count = &o.stats.superseded
	}
	count.Add(int64(dropped))
	return o.bytes+size <= o.limit || o.bytes == 0
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
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.wake()
	}
}

func (o *outbox) endLocked(last []*frame, cause error, drop bool) {
	if drop {
		clear(o.q)
		o.q, o.head, o.pong = o.q[:0], 0, nil
		o.countLocked(-o.bytes)
	}
	for _, f := range last {
		o.pushLocked(f)
	}
	if cause == ErrSlowSubscriber {
		o.stats.slow.Add(1)
	}
	o.state, o.cause = outboxClosing, cause
	o.roomLocked()
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
	o.q, o.head, o.pong = nil, 0, nil
	o.countLocked(-o.bytes)
	o.state = outboxClosed
	o.roomLocked()
}

// take moves up to max bytes (at least one frame) into the empty slice to.
// Where it returns none, the drainer's turn is over: scheduled is false.
func (o *outbox) take(to []*frame, max int) []*frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := 0
	if o.pong != nil {
		taken = o.pong.size()
		to = append(to, o.pong)
		o.pong = nil
	}
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
	}
	o.countLocked(-taken)
	if o.head == len(o.q) {
		o.q, o.head = o.q[:0], 0
		if cap(o.q) > 16 { // an idle connection keeps little
			o.q = nil
		}
	}
	if len(to) == 0 {
		o.scheduled = false
	}
	if o.bytes <= o.limit/2 {
		o.roomLocked()
	}
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
	o.pushLocked(f)
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.wake()
	}
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
