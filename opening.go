package channels

import (
	"context"
	"slices"
	"time"
)

// A start says where a subscription begins: from now on, unless since or last is set.
type start struct {
	since *Position // after it
	last  int       // with so many of the newest messages, or with all if fewer are kept
	named bool      // its position must have an epoch: see channel.sync
	whole bool      // a reset at its beginning is an error, errUnrecoverable
}

// maxLast bounds start.last.
const maxLast = maxListLimit

// check says what is wrong with a start on a channel with these options.
func (f start) check(opts *ChannelOptions) error {
	switch {
	case f.last < 0 || f.last > maxLast:
		return ErrBadQuery.saying("last is %d; it must be 0 to %d", f.last, maxLast)
	case f.last > 0 && f.since != nil:
		return errLastSince
	case f.last > 0 && opts.HistorySize == 0:
		return ErrNoHistory
	}
	return nil
}

var errLastSince = ErrBadQuery.saying("last and since exclude each other: since begins after a position, last with the newest messages")

// An opening is what a subscription begins with. It is for those who need the first
// messages at once, because they send them in one piece, or with an answer: what
// comes meanwhile is held until follow. An opening takes one read of the Store, or
// none.
type opening struct {
	messages []Message // oldest first; they fit into a quarter of the receiver's queue
	from, at Position  // before and after them; zero if the channel keeps no history
	reason   string    // why there is a reset at from; "" if there is none

	own         *place
	top, before Position // the Store's top, and heldFrom before it was read
}

// messageOverhead is about what a message takes in a frame besides its header and body.
const messageOverhead = 256

// open subscribes s, as attach does, and returns what it begins with. follow must
// come next.
//
// Fewer messages come than were missed if they do not fit; after since, the rest
// then follows.
func (ch *channel) open(ctx context.Context, s *subscription, f start) (o opening, err error) {
	if err := f.check(&ch.opts); err != nil {
		return o, err
	}
	err = ch.enter(ctx, s, f.named, func(pos Position) {
		o.own = &place{reading: true, limit: s.out.Limit() / 2, from: pos}
		s.own = o.own
		o.before = pos
		o.from, o.at, o.top = pos, pos, pos
	})
	if err != nil {
		return o, err
	}
	switch {
	case ch.opts.HistorySize == 0:
		if f.since != nil {
			o.reason = resetNoHistory
		}
	case f.last > 0:
		err = o.readLast(ctx, s, f.last)
	case f.since != nil && *f.since != o.at:
		began := time.Now()
		if err = o.readSince(ctx, s, *f.since); err == nil {
			counts := ch.env.counts
			counts.caughtUp.Add(int64(len(o.messages)))
			counts.catchUp.Add(time.Since(began))
		}
	}
	if err == nil && o.reason != "" {
		ch.env.counts.resets.add(o.reason)
	}
	if err != nil {
		ch.detach(s)
		if ctx.Err() != nil {
			return o, ctx.Err()
		}
		ch.env.storeFailed(err)
		return o, ErrStoreUnavailable.because(err)
	}
	if f.whole && o.reason != "" && ch.opts.HistorySize > 0 {
		ch.detach(s)
		return o, errUnrecoverable
	}
	return o, nil
}

// asksFor reports whether open has to ask the Store.
func (ch *channel) asksFor(f *start) bool {
	return ch.opts.HistorySize > 0 && (f.since != nil || f.last > 0 || !ch.isSynced(f.named))
}

// readLast takes the newest n messages. Those that have gone or were removed are not
// missed: they came before the subscriber.
func (o *opening) readLast(ctx context.Context, s *subscription, n int) error {
	o.before = s.heldFrom(o.own)
	page, err := s.ch.readNewest(ctx, n)
	if err != nil || page.Top.Epoch == "" {
		return err
	}
	o.top = Position(page.Top)
	o.at, o.from = o.top, o.top
	room := s.out.Limit() / 4
	for i, e := range slices.Backward(page.Entries) {
		if room -= size(e.Header, e.Body); room < 0 && len(o.messages) > 0 {
			break
		}
		o.messages = append(o.messages, fromEntry(&s.ch.opts, page.Top.Epoch, &page.Entries[i]))
		o.from.Offset = e.Offset - 1
	}
	slices.Reverse(o.messages)
	return nil
}

// readSince takes what was missed after a position that the client brought.
func (o *opening) readSince(ctx context.Context, s *subscription, at Position) error {
	o.before = s.heldFrom(o.own)
	page, err := s.ch.readShared(ctx, at.Offset)
	switch {
	case err != nil:
		return err
	case page.Top.Epoch == "":
		if at != (Position{}) { // the log is lost
			o.reason = resetEpoch
		}
		return nil
	}
	o.top = Position(page.Top)
	o.from, o.reason = resumeAt(at, &page, true)
	o.at = o.from
	room := s.out.Limit() / 4
	for i := range page.Entries {
		e := &page.Entries[i]
		if e.Offset != o.at.Offset+1 {
			continue // read for another position
		}
		if room -= size(e.Header, e.Body); room < 0 && len(o.messages) > 0 {
			break
		}
		o.messages = append(o.messages, fromEntry(&s.ch.opts, page.Top.Epoch, e))
		o.at.Offset = e.Offset
	}
	return nil
}

// size is about what a message takes in a queue.
func size(header string, body []byte) int { return len(header) + len(body) + messageOverhead }

// shorten drops the newest messages until the others take at most n bytes. follow
// reads them again.
func (o *opening) shorten(n int) {
	for i, m := range o.messages {
		if n -= size(m.Header, m.Body); n < 0 {
			o.at.Offset = m.Position.Offset - 1
			o.messages = o.messages[:i]
			return
		}
	}
}

// follow lets the subscriber get what comes after its opening.
func (s *subscription) follow(o *opening) {
	at, done := o.at, false
	if more := at.Epoch == o.top.Epoch && at.Offset < o.top.Offset; !more {
		at, done = s.join(o.own, at, o.top, o.before)
	}
	if !done {
		s.ch.env.tasks.Run(func() { s.catchUp(o.own, at, false) }) // it fails if the hub is shut down
	}
}

// send queues the opening of a subscriber that gets messages one by one. What does
// not fit is read again when there is room.
func (o *opening) send(s *subscription) {
	if s.ch.opts.HistorySize > 0 {
		s.tellPlace(o.from)
	}
	for i, m := range o.messages {
		if !s.out.Offer(&newMessageFrame(s.ch, m).Frame) {
			o.at = m.Position
			o.at.Offset--
			o.messages = o.messages[:i]
			return
		}
	}
}
