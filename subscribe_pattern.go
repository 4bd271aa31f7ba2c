package channels

import "context"

// SubscribePattern subscribes to all channels whose names a pattern matches, also to
// those that are new later, on all replicas. The patterns are the globs of Redis:
//
//	chat.*       * is any number of bytes, even none
//	chat.?       ? is one byte; a character outside of ASCII has several
//	chat.[a-c]   one of these; [^a-c] is any but these
//	chat.\[1\]   \ takes away the meaning of what follows
//
// Each message has its Channel. It comes when it is published on this replica or
// arrives here, at most once: there is no history and no order over several
// publishers, what the mesh loses is not fetched, presence does not come, and the
// subscription's Position is nil. On another replica, the first messages may pass by
// in the moment before that has learnt of the pattern.
//
// Otherwise the subscription is like that of [Hub.Subscribe]. For a subscriber that
// does not read, Options.Channel is asked with the pattern; of what it returns, only
// SlowSubscriber counts.
//
// The errors are [ErrBadChannel] for what is no pattern, [ErrTooManyChannels] (see
// Options.MaxPatterns), [ErrMeshUnavailable], [ErrInternal] (see [Hub.Publish]),
// [ErrClosed], and the context's.
func (h *Hub) SubscribePattern(ctx context.Context, pattern string) (*Subscription, error) {
	if !h.calls.Enter() {
		return nil, ErrClosed
	}
	defer h.calls.Leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := compilePattern(pattern)
	if err != nil {
		return nil, err
	}
	fd, err := h.useFeed(p)
	if err != nil {
		return nil, err
	}
	s := h.newSubscriber(ctx, fd.pattern.String())
	_, entered := s.enter(ctx)
	fd.attach(s.subs.first, nil)
	s.subs.settle(s.subs.first)
	entered()
	s.begin()
	return s, nil
}
