package channels

import (
	"context"

	"github.com/channels-go/channels/internal/fanout"
)

// attach subscribes s to a channel in use: to all that comes from now on or, with a
// start, to the newest messages or what was missed, and then to all that comes, with
// no gap and no duplicate. It returns the position from which a subscriber without
// since can resume: where it begins.
func (ch *channel) attach(ctx context.Context, s *subscription, from start) (began Position, err error) {
	if from.last != 0 {
		return ch.attachLast(ctx, s, from)
	}
	err = ch.enter(ctx, s, from.named, func(pos Position) {
		began = pos
		ch.beginAtLocked(s, from.since)
	})
	return began, err
}

// attachLast is attach for a start with the newest messages. It is not inlined, since an
// opening is large, and most have none.
//
//go:noinline
func (ch *channel) attachLast(ctx context.Context, s *subscription, from start) (began Position, err error) {
	o, err := ch.open(ctx, s, from)
	if err == nil {
		o.send(s)
		s.follow(&o)
	}
	return o.from, err
}

// enter makes s a subscriber of a channel in use. It calls begin before s gets
// anything, with the channel's lock and position. named is that of start.
func (ch *channel) enter(ctx context.Context, s *subscription, named bool, begin func(pos Position)) (err error) {
	s.ch = ch
	ch.mu.Lock()
	ch.order.waiting++ // so that a last subscriber that leaves meanwhile ends nothing
	ch.mu.Unlock()
	if !ch.isSynced(named) {
		if err = ch.listen(); err == nil && ch.opts.HistorySize > 0 {
			err = ch.sync(ctx, named)
		}
	}
	if ch.entered(s, begin, err) {
		ch.unlisten()
	}
	return err
}

// entered ends enter. err is why the channel cannot be subscribed to. Then idle says
// that no other subscriber is there.
func (ch *channel) entered(s *subscription, begin func(pos Position), err error) (idle bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.order.waiting--
	if err != nil {
		return ch.restLocked()
	}
	ch.attachLocked(s)
	begin(ch.order.pos)
	return false
}

// beginAtLocked has a new subscriber begin now or after a position.
func (ch *channel) beginAtLocked(s *subscription, since *Position) {
	pos := ch.order.pos
	switch {
	case ch.opts.HistorySize == 0:
		if since != nil {
			ch.env.counts.resets.add(resetNoHistory)
			s.out.Send(newResetFrame(ch.name, resetNoHistory, nil), fanout.Close)
		}
	case since == nil:
		s.tellPlace(pos)
	case *since != pos:
		ch.catchUpLocked(s, *since, true)
	}
}
