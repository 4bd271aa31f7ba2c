package channels

import (
	"context"

	"github.com/channels-go/channels/internal/fanout"
)

// attach subscribes s to a channel in use: to all that comes from now on
// or, with since, to what was missed and then to all that comes, with no gap
// and no duplicate. It returns the channel's position. A subscriber without since
// begins there, and can resume from there.
func (ch *channel) attach(ctx context.Context, s *subscription, since *Position) (began Position, err error) {
	err = ch.prepare(ctx, s)
	began, idle := ch.attachPrepared(s, since, err)
	if idle {
		ch.unlisten()
	}
	return began, err
}

// prepare makes the channel's position known for a subscriber that is about to come.
// The caller ends order.waiting, even after an error.
func (ch *channel) prepare(ctx context.Context, s *subscription) (err error) {
	s.ch = ch
	ch.mu.Lock()
	ch.order.waiting++ // so that a last subscriber that leaves meanwhile ends nothing
	known := ch.order.synced
	ch.mu.Unlock()
	if !known {
		if err = ch.listen(); err == nil && ch.opts.HistorySize > 0 {
			err = ch.sync(ctx)
		}
	}
	return err
}

// attachPrepared ends attach. err is why the channel cannot be subscribed to. Then idle
// says that no other subscriber is there.
func (ch *channel) attachPrepared(s *subscription, since *Position, err error) (began Position, idle bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.order.waiting--
	if err != nil {
		return began, ch.restLocked()
	}
	ch.attachLocked(s)
	pos := ch.order.pos
	switch {
	case ch.opts.HistorySize == 0:
		if since != nil {
			s.out.Send(newResetFrame(resetNoHistory, nil), fanout.Close)
		}
	case since == nil:
		if s.out.Format == fanout.SSE {
			s.out.Send(newPlaceFrame(pos), fanout.Close)
		}
	case *since != pos:
		ch.catchUpLocked(s, *since, true)
	}
	return pos, false
}
