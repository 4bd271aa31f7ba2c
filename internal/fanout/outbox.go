package fanout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Outbox is the bounded queue of what is to be written to one receiver. Any
// goroutine may send to it, and none ever waits for the receiver.
//
// At most one goroutine at a time drains it, while scheduled is true. Whoever
// sets scheduled calls the owner's Wake, and the drainer clears it when it finds
// nothing more to take.
type Outbox struct {
	// To queue a frame touches only the first fields. They fill a cache line: a channel's
	// message goes to thousands of outboxes, and to fetch them is most of the work. A
	// drainer also touches the second line.

	mu        sync.Mutex // guards the fields below, up to cutoff, except those that say otherwise
	q         []*Frame   // q[head:] waits
	one       [1]*Frame  // what q is while no more than one frame waits
	bytes     int        // of what waits in q
	head      int32
	lane      uint16                 // the writer that drains socket
	state     state                  // open until End or Abandon
	scheduled bool                   // somebody drains it
	socket    atomic.Pointer[Socket] // the owner, if a writer of the Engine drains it; atomic for Fetch alone

	first    *Frame        // goes before what waits in q, and is not counted: the newest pong, or a frame that rides
	room     chan struct{} // not nil while somebody waits for room
	told     int           // bytes of q's slots that queued counts, besides its frames
	queued   *atomic.Int64 // what waits in this outbox and some others: see Frame.hold; set by Init
	limit    int           // in bytes, overhead included; set by Init
	Sent     struct{ Messages, Bytes atomic.Int64 }
	Format   Format // set before the first frame is taken
	Joined   bool   // whether a WebSocket frame may have several texts: see appendJoined; the same
	disowned bool   // queued no longer counts this outbox

	cause  error       // why it left the open state
	over   func()      // see WhenOver
	cutoff *time.Timer // of rest

	engine *Engine
	owner  Owner
	rest   time.Duration // how long the receiver has for what waits once the outbox has ended; 0 is for ever
}

type state uint8

const (
	open    state = iota
	closing       // the last frame is queued or on its way
	closed        // nothing is written any more
)

// An Owner is the receiver that an Outbox belongs to.
type Owner interface {
	Wake()      // gets a drainer to work; called without the outbox's lock
	Kill(error) // cuts the connection at once; it may be called again
}

// errDribbled says that a receiver that was told to go has not taken the rest in time.
var errDribbled = errors.New("channels: the client did not read the rest in time after it was told to go")

// CloseTimeout is how long a client may take to answer a close frame. It is
// shorter than the time that apps give a shutdown, which waits for it.
const CloseTimeout = 3 * time.Second

// Init prepares an outbox for use. A receiver of bytes has WriteTimeout and
// CloseTimeout for what waits once the outbox has ended. A receiver of Values has
// for ever, as it is in the same process.
func (o *Outbox) Init(e *Engine, owner Owner, as Format) {
	o.engine, o.owner, o.Format, o.q = e, owner, as, o.one[:0]
	o.limit, o.queued = e.config.QueueBytes, e.Counter()
	if as != Values {
		o.rest = e.config.WriteTimeout + CloseTimeout
	}
}

// Cut has the owner cut the connection.
func (o *Outbox) Cut(err error) { o.owner.Kill(err) }

// Send queues a frame. If there is no room, the policy decides.
func (o *Outbox) Send(f *Frame, policy Policy) { o.put(f, policy, true) }

// Queue is Send for a goroutine that calls Flush soon: until then, nobody is woken for
// the frame.
func (o *Outbox) Queue(f *Frame, policy Policy) { o.put(f, policy, false) }

// Flush gets a drainer to work if something waits.
func (o *Outbox) Flush() {
	o.mu.Lock()
	if !o.waitsLocked() {
		o.mu.Unlock()
		return
	}
	o.scheduleAndUnlock()
}

// waitsLocked reports whether something waits.
func (o *Outbox) waitsLocked() bool { return int(o.head) < len(o.q) || o.first != nil }

// put is Send, or Queue without wake.
func (o *Outbox) put(f *Frame, policy Policy, wake bool) {
	o.mu.Lock()
	if o.state != open {
		o.mu.Unlock()
		return
	}
	o.putLocked(f, policy, false)
	if !wake {
		o.mu.Unlock()
		return
	}
	o.scheduleAndUnlock()
}

// putLocked is Send for an outbox that is open, and reports whether the frame waits now.
// With held, the caller has already counted f, and uncounts it if that is false.
func (o *Outbox) putLocked(f *Frame, policy Policy, held bool) (queued bool) {
	switch {
	case f.Kind == Pong:
		// It replaces one that waits: a flood of pings is answered once
		// (RFC 6455 section 5.5.3). It is no part of the queue, in which it
		// would have to be looked for, and pushes nothing out of it.
		if rides := o.first; rides != nil && rides.Kind != Pong {
			rides.hold(1, o.queued)
			o.pushLocked(rides)
		}
		o.first = f
	case o.bytes == 0 || o.bytes+f.Size() <= o.limit || o.makeRoomLocked(f, policy):
		if !held {
			f.hold(1, o.queued)
		}
		o.pushLocked(f)
		return true
	case policy != Close && f.Kind == Event:
		o.engine.droppedBy(policy).Add(1)
	default:
		o.engine.Slow.Add(1)
		slow := &o.engine.config.Slow
		o.endLocked(slow.Last, slow.Cause, true)
	}
	return false
}

// SendIfIdle queues a frame if nothing else waits, and reports whether it did.
func (o *Outbox) SendIfIdle(f *Frame) bool {
	o.mu.Lock()
	if o.state != open || o.bytes > 0 {
		o.mu.Unlock()
		return false
	}
	o.pushAndUnlock(f)
	return true
}

// Ride has a frame go with what is written next, and reports whether it will: not if
// something waits already. To write both at once hardly costs more than one. Nobody is woken
// for it, so Flush has to follow.
func (o *Outbox) Ride(f *Frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != open || o.bytes > 0 || o.first != nil {
		return false
	}
	o.first = f
	return true
}

// Offer queues a frame if there is room for it, and reports whether it did.
// Nothing is dropped for it and nobody is closed. It returns true if the outbox
// has ended, since then it is of no use to wait for room.
func (o *Outbox) Offer(f *Frame) bool {
	o.mu.Lock()
	if o.state != open {
		o.mu.Unlock()
		return true
	}
	if o.bytes > 0 && o.bytes+f.Size() > o.limit {
		o.mu.Unlock()
		return false
	}
	o.pushAndUnlock(f)
	return true
}

// pushAndUnlock queues a frame.
func (o *Outbox) pushAndUnlock(f *Frame) {
	if f.Kind == Message {
		o.engine.Delivered.Add(1)
	}
	f.hold(1, o.queued)
	o.pushLocked(f)
	o.scheduleAndUnlock()
}

// scheduleAndUnlock gets a drainer to work if there is none.
func (o *Outbox) scheduleAndUnlock() {
	wake := !o.scheduled
	o.scheduled = true
	o.mu.Unlock()
	if wake {
		o.owner.Wake()
	}
}

// pushLocked queues a frame that is counted.
func (o *Outbox) pushLocked(f *Frame) {
	if o.bytes > 0 && o.bytes > o.limit/2 && !o.engine.pressed.Load() {
		o.engine.pressed.Store(true)
	}
	if len(o.q) == cap(o.q) {
		o.growLocked()
	}
	o.q = append(o.q, f)
	o.bytes += f.Size()
	if len(o.q) >= countStep/slotBytes {
		o.tellLocked()
	}
}

// growLocked makes room for one more frame.
func (o *Outbox) growLocked() {
	if o.head > 0 { // reuse the room at the front first
		n := copy(o.q, o.q[o.head:])
		clear(o.q[n:])
		o.q, o.head = o.q[:n], 0
		return
	}
	o.q = slices.Grow(o.q, 1)
	o.one[0] = nil // it would keep the frame as long as the outbox lives
}

// releaseLocked uncounts a frame that waits no longer.
func (o *Outbox) releaseLocked(f *Frame) {
	o.bytes -= f.Size()
	if !o.disowned {
		f.letGo(1, o.queued)
	}
}

// released gathers frames that wait no longer: a writer takes the same frame out
// of many outboxes, one after the other, and processors should not contend for it.
type released struct {
	f *Frame
	n int
}

func (r *released) add(f *Frame, sum *atomic.Int64) {
	if r.f != f {
		r.flush(sum)
		r.f = f
	}
	r.n++
}

func (r *released) flush(sum *atomic.Int64) {
	if r.f != nil {
		if r.f.letGo(r.n, sum) {
			r.f.taken()
		}
		*r = released{}
	}
}

// tellLocked counts the queue itself, which frames do not share, in steps of some
// kilobytes, so one message each for many receivers does not touch the shared counter.
func (o *Outbox) tellLocked() {
	n := (len(o.q) - int(o.head)) * slotBytes
	if d := n - o.told; (d >= countStep || d <= -countStep || n == 0 && d != 0) && !o.disowned {
		o.told = n
		o.queued.Add(int64(d))
	}
}

const (
	slotBytes = 16 // a pointer, and the room to grow
	countStep = 4 << 10
)

// End queues the last frames and refuses everything after them. With drop, what
// waits is forgotten first. Only the first End has an effect.
func (o *Outbox) End(last []*Frame, cause error, drop bool) {
	o.mu.Lock()
	if o.state != open {
		o.mu.Unlock()
		return
	}
	o.endLocked(last, cause, drop)
	o.scheduleAndUnlock()
}

func (o *Outbox) endLocked(last []*Frame, cause error, drop bool) {
	if drop {
		kept, waiting := o.q[:0], o.q[o.head:]
		if len(waiting) > 0 && waiting[0].Kind == Place {
			kept = append(kept, waiting[0]) // without it, a browser would come back to what is then the present
			waiting = waiting[1:]
		}
		for _, f := range waiting {
			o.releaseLocked(f)
		}
		clear(o.q[len(kept):])
		o.q, o.head, o.first = kept, 0, nil
		o.tellLocked()
	}
	for _, f := range last {
		f.hold(1, o.queued)
		o.pushLocked(f)
	}
	o.state, o.cause = closing, cause
	if o.rest > 0 {
		// Each write is bounded by progress alone. A receiver that takes a byte
		// now and then would stay for as long as the queue lasts.
		o.cutoff = time.AfterFunc(o.rest, func() { o.owner.Kill(errDribbled) })
	}
	o.overLocked()
}

// Abandon forgets everything, because nothing can be written any more.
func (o *Outbox) Abandon(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.abandonLocked(cause)
}

func (o *Outbox) abandonLocked(cause error) {
	if o.cause == nil {
		o.cause = cause
	}
	for _, f := range o.q[o.head:] {
		o.releaseLocked(f)
	}
	o.q, o.head, o.first, o.one[0] = nil, 0, nil, nil
	o.tellLocked()
	o.state = closed
	if o.cutoff != nil {
		o.cutoff.Stop()
	}
	o.overLocked()
}

// overLocked wakes the goroutines that wait for room, and calls WhenOver's function.
func (o *Outbox) overLocked() {
	o.roomLocked()
	if o.over != nil {
		o.over()
	}
}

// WhenOver has f called once the outbox has ended, at once if it has already;
// nil takes that back. f must neither wait nor call the outbox.
func (o *Outbox) WhenOver(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over = f; f != nil && o.state != open {
		f()
	}
}

// Ended reports whether the outbox takes nothing any more, and why.
func (o *Outbox) Ended() (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state != open, o.cause
}

// Disown leaves what still waits to the receiver: the engine no longer counts it.
func (o *Outbox) Disown() {
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

// Next takes the next frame, for a receiver that takes one at a time. If there is
// none, it ends the drainer's turn and returns nil; with over, nothing more will
// come.
func (o *Outbox) Next() (f *Frame, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if int(o.head) == len(o.q) {
		o.scheduled = false
		return nil, o.state != open
	}
	f = o.q[o.head]
	o.q[o.head] = nil
	o.head++
	o.bytes -= f.Size()
	if !o.disowned && f.letGo(1, o.queued) {
		f.taken()
	}
	o.tookLocked()
	return f, false
}

// Take appends what one write should write to the empty slice to: some
// kilobytes, or one longer frame. If there is nothing, it ends the drainer's turn.
func (o *Outbox) Take(to []*Frame) []*Frame {
	var r released
	to = o.take(to, &r)
	r.flush(o.queued)
	return to
}

// take is Take; r gets what waits no longer.
func (o *Outbox) take(to []*Frame, r *released) []*Frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first != nil {
		to = append(to, o.first)
		o.first = nil
		if int(o.head) < len(o.q) && o.q[o.head].Size() > maxRidden {
			return to
		}
	}
	taken := 0
	for int(o.head) < len(o.q) {
		f := o.q[o.head]
		n := f.Size()
		if taken > 0 && taken+n > writeBytes {
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

// tookLocked follows each taking.
func (o *Outbox) tookLocked() {
	o.tellLocked()
	if int(o.head) == len(o.q) {
		o.q, o.head = o.q[:0], 0
		if cap(o.q) > 16 { // an idle connection keeps little
			o.q = o.one[:0]
		}
	}
	if o.bytes <= o.limit/2 {
		o.roomLocked()
	}
}

// maxRidden bounds what a frame rides with: both are copied into one piece.
const maxRidden = 4 << 10

// writeBytes is how much is written at once, unless a single frame is longer.
const writeBytes = 64 << 10

// Join returns frames that were taken as one run of bytes, which is to be written
// now: the only frame itself, or a copy in *buf. With last, nothing follows.
func (o *Outbox) Join(buf *[]byte, frames []*Frame) (b []byte, last bool) {
	b, last = o.join(buf, frames)
	o.engine.Written.Add(int64(len(b)))
	return b, last
}

// join is Join for a writer, which adds to Counters.Written itself.
func (o *Outbox) join(buf *[]byte, frames []*Frame) (b []byte, last bool) {
	messages := int64(0)
	if len(frames) == 1 {
		b, last = frames[0].Bytes(o.Format), frames[0].Last
		if frames[0].head > 0 && len(b) > 0 {
			messages = 1
		}
	} else {
		b = (*buf)[:0]
		for _, f := range frames {
			more := f.Bytes(o.Format)
			if !o.Joined {
				b = append(b, more...)
			}
			last = last || f.Last
			if f.head > 0 && len(more) > 0 {
				messages++
			}
		}
		if o.Joined {
			b = appendJoined(b, o.Format, frames)
		}
		if *buf = b; cap(b) > 4*writeBytes {
			*buf = nil // a rare long frame is not kept
		}
	}
	// Counted before the write: once a client has a message, it is counted.
	o.Sent.Messages.Add(messages)
	o.Sent.Bytes.Add(int64(len(b)))
	return b, last
}

// Roomy reports whether a frame of this size leaves half of the queue free.
func (o *Outbox) Roomy(size int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes == 0 || o.bytes+size <= o.limit/2 || o.state != open
}

// Limit is how many bytes may wait.
func (o *Outbox) Limit() int { return o.limit }

func (o *Outbox) roomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// WaitRoom waits until at most half of the queue is in use and size more bytes
// fit, or until the queue is empty, which then takes a frame of any size. It
// returns false if the outbox, or ctx, ends first.
func (o *Outbox) WaitRoom(ctx context.Context, size int) bool {
	for {
		o.mu.Lock()
		if o.state != open {
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
