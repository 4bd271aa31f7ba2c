package channels

import "context"

// A hold keeps what is published while a subscriber catches up with what it
// missed. channel.mu guards it.
type hold struct {
	frames []*frame
	bytes  int
	limit  int
	lost   bool   // more came than it may keep; the Store has it
	upTo   uint64 // where set: nothing is kept; what is after this offset ends the hold
}

// held returns whether a live frame is not yet the subscriber's to have.
func (s *subscription) held(f *frame) bool {
	h := s.hold
	if h.upTo > 0 {
		switch offset := f.offset(); {
		case offset == 0:
			return false
		case offset <= h.upTo:
			return true
		}
		s.hold = nil
		return false
	}
	switch {
	case h.lost:
	case h.bytes+f.size() > h.limit:
		*h = hold{limit: h.limit, lost: true}
	default:
		h.frames = append(h.frames, f)
		h.bytes += f.size()
	}
	return true
}

// attach subscribes out to a channel in use: to all that comes from now on
// or, with since, to what was missed and then to all that comes, with no gap
// and no duplicate.
func (ch *channel) attach(ctx context.Context, s *subscription, since *Position) error {
	s.ch, s.slot = ch, -1
	ch.mu.Lock()
	ch.order.waiting++ // so that a last subscriber who leaves meanwhile ends nothing
	ch.mu.Unlock()
	err := ch.prepare(ctx)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.order.waiting--
	if err != nil {
		ch.restLocked()
		return err
	}
	ch.attachLocked(s)
	ch.touchLocked()
	switch {
	case ch.opts.HistorySize == 0:
		if since != nil {
			s.out.send(newResetFrame(resetNoHistory, nil), SlowClose)
		}
	case since == nil:
		if s.out.format == formatSSE {
			s.out.send(newPlaceFrame(ch.order.pos), SlowClose)
		}
	case *since != ch.order.pos:
		from, target, held := *since, ch.order.pos, &hold{limit: s.out.limit / 2}
		s.hold = held
		if !ch.hub.background(func() { s.catchUp(from, target, held) }) {
			s.hold = nil // shut down: the connection is about to end
		}
	}
	return nil
}

// prepare has the mesh bring the channel's messages, and makes its position
// known where it has positions. The caller has counted itself in order.waiting.
func (ch *channel) prepare(ctx context.Context) error {
	if ch.opts.HistorySize > 0 {
		return ch.sync(ctx)
	}
	return ch.listen()
}

// listen asks the mesh for the channel's messages.
func (ch *channel) listen() error {
	if m := ch.hub.mesh; m != nil {
		if err := ch.hub.guard("the mesh", func() error { return m.Subscribe(ch.name) }); err != nil {
			return ErrMeshUnavailable.because(err)
		}
	}
	return nil
}

// catchUp sends what was missed, page by page as fast as the receiver takes
// it, and then lets the held messages follow. It is a background task of the
// hub, and ends when the subscriber has caught up or left.
func (s *subscription) catchUp(from, target Position, held *hold) {
	ch, ctx := s.ch, s.ch.hub.ctx
	backoff := newBackoff()
	for s.out.waitRoom(ctx, 0) {
		page, err := ch.read(ctx, from.Offset)
		if err != nil {
			ch.hub.warnStore(err)
			if !backoff.wait(ctx) {
				return
			}
			continue
		}
		backoff.reset()
		top := Position(page.Top)
		if from == (Position{}) {
			from.Epoch = top.Epoch // it looked before the log was born
		}
		switch {
		case top.Epoch != from.Epoch, from.Offset > top.Offset:
			s.reset(resetEpoch, held)
			return
		case page.First > from.Offset+1:
			s.reset(resetTrimmed, held)
			return
		}
		for i := range page.Entries {
			f := ch.encode(top.Epoch, &page.Entries[i]) // each when its turn has come: they are not all in memory
			if !s.out.waitRoom(ctx, 0) || !s.sendMissed(f, held) {
				return
			}
			from = f.msg.Position
		}
		if len(page.Entries) == 0 && top.Offset < target.Offset && top.Epoch != "" {
			s.reset(resetEpoch, held) // the Store has lost its last messages
			return
		}
		if !s.out.waitRoom(ctx, 0) || s.join(from, &target, held) {
			return
		}
	}
}

// sendMissed sends a message of the time before; false ends the catching up.
func (s *subscription) sendMissed(f *frame, held *hold) bool {
	s.ch.mu.Lock()
	defer s.ch.mu.Unlock()
	if s.hold != held {
		return false
	}
	s.out.send(f, SlowClose)
	return true
}

// reset ends the catching up where it is not possible.
func (s *subscription) reset(reason string, held *hold) {
	s.ch.mu.Lock()
	defer s.ch.mu.Unlock()
	if s.hold == held {
		pos := s.ch.order.pos
		s.resetLocked(newResetFrame(reason, &pos))
	}
}

// resetLocked sends a reset, and of what was held what has no position.
func (s *subscription) resetLocked(reset *frame) {
	held := s.hold
	s.hold = nil
	s.out.send(reset, SlowClose)
	if held == nil {
		return
	}
	for _, f := range held.frames {
		if f.offset() == 0 {
			s.out.send(f, SlowClose)
		}
	}
}

// join lets the subscriber take part from now on, where it has all up to
// target. It returns false, with a later target, where there is more to read.
func (s *subscription) join(from Position, target *Position, held *hold) bool {
	ch := s.ch
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case s.hold != held:
		return true // it has left, or was reset
	case held.lost:
		*target = ch.order.pos
		held.lost = false
		return false
	case from.Epoch == target.Epoch && from.Offset < target.Offset:
		return false
	}
	for _, f := range held.frames {
		if n := f.offset(); n == 0 || n > from.Offset {
			s.out.send(f, SlowClose)
		}
	}
	s.hold = nil
	if ch.order.pos.Epoch == from.Epoch && ch.order.pos.Offset < from.Offset {
		// The Store had more than this replica has seen yet.
		s.hold = &hold{upTo: from.Offset}
	}
	return true
}
