package channels

import (
	"slices"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/store"
)

// A place says where a subscriber is, if that is not where its channel is. channel.mu
// guards it.
//
// A subscriber that is behind reads what it missed by itself, and what is
// published meanwhile is held for it. One that is apart has been further than the
// channel here, which lags, or in another life of the log: it waits until the
// channel has come to it.
type place struct {
	at      Position // apart: it has everything up to here
	reading bool
	read    uint64 // apart: order.reads at that moment; only later reads move it

	frames []*frame // reading: those that were passed on after from, and those without a position
	bytes  int
	limit  int
	from   Position
	doubt  string // reading: the channel's epoch when join last found another one in the Store; join believes it the second time
}

// lost is the place of a subscriber that is about to be ended, since it has missed
// messages: see resetLocked. It gets nothing more.
var lost = &place{}

// holdsLocked returns true if a subscriber out of step is not to be sent this frame
// now: it is held, or the subscriber has it, or the channel is elsewhere.
func (s *subscription) holdsLocked(f *frame) bool {
	own, n := s.own, f.offset()
	switch {
	case own == lost:
		return true
	case own.reading:
		own.hold(f)
		return true
	case n == 0:
		return false
	case f.message.Position == own.at.next(): // the channel has come to it
		s.own = nil
		return false
	case f.message.Position == own.at:
		s.own = nil
	}
	return true // it has it, or the channel is elsewhere
}

// hold keeps a frame. If there is no room, it drops all that it holds; the messages
// with a position are then read from the Store.
func (p *place) hold(f *frame) {
	p.frames = append(p.frames, f)
	if p.bytes += f.Size(); p.bytes <= p.limit {
		return
	}
	for _, f := range p.frames {
		if f.offset() > 0 {
			p.from = f.message.Position
		}
	}
	p.frames, p.bytes = nil, 0
}

// cut forgets what was held before the channel moved.
func (p *place) cut(to Position) {
	p.frames = slices.DeleteFunc(p.frames, func(f *frame) bool { return f.offset() > 0 })
	p.bytes = 0
	for _, f := range p.frames {
		p.bytes += f.Size()
	}
	p.from, p.doubt = to, ""
}

// readLocked has a subscriber that has everything up to at read what comes next.
func (ch *channel) readLocked(s *subscription, at Position) { ch.catchUpLocked(s, at, false) }

func (ch *channel) catchUpLocked(s *subscription, at Position, first bool) {
	own := &place{reading: true, limit: s.out.Limit() / 2, from: ch.order.pos}
	s.own = own
	if !ch.env.tasks.Run(func() { s.catchUp(own, at, first) }) {
		s.own = nil // shut down: the connection is about to end
	}
}

// placeLocked puts a subscriber that has everything up to at where it belongs.
func (ch *channel) placeLocked(s *subscription, at Position) {
	o := &ch.order
	switch {
	case at == o.pos:
		s.own = nil
	case at.Epoch == o.pos.Epoch && at.Offset < o.pos.Offset:
		ch.readLocked(s, at)
	default:
		s.own = &place{at: at, read: o.reads}
	}
}

// catchUp sends what was missed, page by page and as fast as the receiver takes
// it, until the subscriber is in step with the channel, or ahead of it. With
// first, the position is the client's own: if it is of no use, the subscriber
// goes on at the present one, since the client has to fetch the state anew anyway.
// catchUp is a task of the hub, and ends at the latest when the subscriber leaves.
func (s *subscription) catchUp(own *place, at Position, first bool) {
	ch, ctx := s.ch, s.ch.env.ctx
	counts := ch.env.counts
	began := time.Now()
	retry := backoff.New()
	for s.out.WaitRoom(ctx, 0) {
		before := s.heldFrom(own)
		page, err := ch.readShared(ctx, at.Offset)
		if err != nil {
			ch.env.storeFailed(err)
			if !retry.Wait(ctx) {
				return
			}
			continue
		}
		to, reason := resumeAt(at, &page, first)
		top := Position(page.Top)
		if reason != "" && !s.tell(own, reason, to) {
			return
		}
		progress := reason != "" || to != at
		at, first = to, false
		for i := range page.Entries {
			e := &page.Entries[i]
			if e.Offset != at.Offset+1 {
				continue // read for another position
			}
			f := ch.encode(top.Epoch, e) // each when its turn has come: they are not all in memory
			if !s.sendMissed(own, f) {
				return
			}
			at, progress = f.message.Position, true
			counts.caughtUp.Add(1)
		}
		if at.Epoch == top.Epoch && at.Offset < top.Offset {
			if !progress && !retry.Wait(ctx) {
				return
			}
			continue
		}
		was := at
		var done bool
		if at, done = s.join(own, at, top, before); done {
			counts.catchUp.Add(time.Since(began))
			return
		}
		if progress || at != was {
			retry.Reset()
		} else if !retry.Wait(ctx) { // it looks again, but not without end
			return
		}
	}
}

// resetLocked tells a subscriber that messages were missed. In the client protocol
// this ends the subscription, and the client subscribes again; then resetLocked
// returns false.
func (s *subscription) resetLocked(f *fanout.Frame) (stays bool) {
	s.ch.env.counts.resets.add(reasonOf(f))
	session := s.client.session
	if session == nil {
		s.out.Send(f, fanout.Close)
		return true
	}
	s.own = lost
	s.ch.env.tasks.Run(func() { session.lost(s) }) // if not, the connection is about to end
	return false
}

// resumeAt is goOn with what is no longer kept: the subscriber goes on after to, with
// a reset unless reason is "". With first, a position that is of no use leads to the
// present.
func resumeAt(at Position, page *store.Page, first bool) (to Position, reason string) {
	to, reason, known := goOn(at, page)
	if reason == "" && trimmed(to, page) {
		to.Offset, reason = page.First-1, resetTrimmed
	}
	if first && reason != "" && (!known || reason == resetTrimmed) {
		to = Position(page.Top)
	}
	return to, reason
}

// heldFrom returns the position after which the channel's messages are held.
func (s *subscription) heldFrom(own *place) Position {
	s.ch.mu.Lock()
	defer s.ch.mu.Unlock()
	return own.from
}

// tell sends a reset. It returns false if the catching up is over.
func (s *subscription) tell(own *place, reason string, at Position) bool {
	s.ch.mu.Lock()
	defer s.ch.mu.Unlock()
	if s.own != own {
		return false
	}
	own.doubt = ""
	return s.resetLocked(newResetFrame(s.ch.name, reason, &at))
}

// sendMissed sends a message that was missed, once there is room for it. It
// returns false if the catching up is over.
func (s *subscription) sendMissed(own *place, f *frame) bool {
	for s.out.WaitRoom(s.ch.env.ctx, f.Size()) {
		s.ch.mu.Lock()
		mine := s.own == own
		sent := mine && s.out.Offer(&f.Frame)
		s.ch.mu.Unlock()
		if sent || !mine {
			return sent
		}
	}
	return false
}

// join ends the catching up of a subscriber that has everything up to at, which
// is all that the Store had: it gets what is held, and is then in step, or apart.
// If there is more to read, join returns false and where the subscriber is now.
// top is the Store's answer; before is the position after which messages were held
// when the Store was asked.
func (s *subscription) join(own *place, at, top, before Position) (Position, bool) {
	ch := s.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if s.own != own {
		return at, true // it has left
	}
	pos, from := ch.order.pos, own.from
	if from == (Position{}) { // since before the log was born
		from.Epoch = pos.Epoch
	}
	apart := false
	var reset *fanout.Frame
	switch {
	case at == pos:
	case top.Epoch != "" && (pos.Epoch == "" || at.Epoch == pos.Epoch && at.Offset > pos.Offset):
		apart = true // the Store had more than this replica has seen yet
	case at.Epoch != "" && at.Epoch == pos.Epoch && from.Epoch == pos.Epoch && at.Offset >= from.Offset:
		// What is held goes on from there.
	case top.Epoch == "" && at != (Position{}): // the log is lost, and not reborn
		own.cut(pos)
		if !s.resetLocked(newResetFrame(ch.name, resetEpoch, &pos)) {
			return at, true
		}
		at = pos
	case at.Epoch == pos.Epoch && before.Epoch == at.Epoch && at.Offset < before.Offset:
		// What is behind at was passed on before the Store was asked, which
		// has lost it. The channel is about to notice.
		lost := at
		apart, reset = true, newResetFrame(ch.name, resetEpoch, &lost)
	case at.Epoch == pos.Epoch:
		return at, false
	case own.doubt != pos.Epoch: // of the two epochs, the one that is read now is right
		own.doubt = pos.Epoch
		return at, false
	default:
		apart = true
	}
	for i, f := range own.frames {
		if n := f.offset(); n > 0 && (apart || f.message.Position != at.next()) {
			continue
		}
		if !f.isFrom(s) && !s.out.Offer(&f.Frame) { // the rest follows when there is room
			own.frames = own.frames[i:]
			return at, false
		}
		own.bytes -= f.Size()
		if f.offset() > 0 {
			at = f.message.Position
		}
	}
	if !apart && at != pos { // there was a hole in what is held: it is read
		own.frames = nil
		own.cut(pos)
		return at, false
	}
	if reset != nil && !s.resetLocked(reset) {
		return at, true
	}
	if !apart {
		s.own = nil
		return at, true
	}
	s.own = &place{at: at, read: ch.order.reads}
	ch.fillLocked(toTop) // the channel may be behind, and not know
	return at, true
}
