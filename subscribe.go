package channels

import (
	"cmp"
	"context"
	"iter"
	"sync"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/internal/rawio"
)

// A Subscription is a channel's messages, or those of all channels that match a
// pattern, for Go code in the same process, under the same rules as a connection:
// order, recovery, and a bounded queue.
// Its methods may be called by many goroutines, but Messages by one at a time.
type Subscription struct {
	client
	outbox fanout.Outbox
	signal bell.Bell     // something is queued
	done   chan struct{} // closed by Close
	stop   func() bool   // ends what watches the context
	ctx    context.Context

	mu     sync.Mutex // guards the fields below
	at     Position   // see Position
	placed bool

	finished, closed sync.Once
}

// Subscribe subscribes to a channel at once: what is published after it
// returns reaches Messages. With from, which [Hub.History] and each message have,
// it begins after that position: first what was missed, then what comes, or a
// [ResetError] if that is no longer possible. The zero Position is before the
// first message; nil means from now on.
//
// The hooks for connections are not called, and no presence shows it.
//
// The subscription ends with ctx, with Close, or with the hub. A subscriber
// that does not read gets what ChannelOptions.SlowSubscriber says; with
// SlowClose its Messages end with [ErrSlowSubscriber], and on a channel with
// history a new Subscribe from its Position misses nothing.
func (h *Hub) Subscribe(ctx context.Context, channel string, from *Position) (*Subscription, error) {
	return h.subscribe(ctx, channel, start{since: from}, true)
}

// SubscribeLast is Subscribe, but first come the newest n messages of the channel's
// history, oldest first, and then what follows them, without a gap. n is at most 1000;
// 0 means from now on. Fewer come if fewer are kept, or if together they are longer
// than a quarter of Options.QueueBytes. The errors are also [ErrNoHistory] and
// [ErrBadQuery].
func (h *Hub) SubscribeLast(ctx context.Context, channel string, n int) (*Subscription, error) {
	return h.subscribe(ctx, channel, start{last: n}, true)
}

// subscribe is Subscribe. A caller that is not trusted subscribes for the network.
func (h *Hub) subscribe(ctx context.Context, channel string, from start, trusted bool) (*Subscription, error) {
	if !h.calls.Enter() {
		return nil, ErrClosed
	}
	defer h.calls.Leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ch, err := h.use(channel, trusted)
	if err != nil {
		return nil, err
	}
	s := h.newSubscriber(ctx, channel)
	in, entered := s.enter(ctx)
	began, err := s.subs.first.attach(in, ch, from)
	entered()
	if err != nil {
		return nil, s.turnAway(err)
	}
	s.subs.settle(s.subs.first)
	if ch.opts.HistorySize > 0 {
		s.reached(cmp.Or(from.since, &began))
	}
	s.begin()
	return s, nil
}

// newSubscriber returns a Go subscriber that is about to enter.
func (h *Hub) newSubscriber(ctx context.Context, channel string) *Subscription {
	s := &Subscription{signal: bell.New(), done: make(chan struct{}), ctx: ctx}
	id, _ := IdentityFrom(ctx)
	s.outbox.Init(h.fan, (*subscriptionOwner)(s), fanout.Values)
	h.initClient(&s.client, &s.outbox, channel, Client{ID: h.clients.newID(), Identity: id, Transport: transportGo})
	return s
}

// begin makes an attached subscriber one of the hub's, until its context ends.
func (s *Subscription) begin() {
	s.admit()
	s.stop = context.AfterFunc(s.ctx, s.close)
}

// ID returns the id for PublishOptions.Except.
func (s *Subscription) ID() string { return s.info.ID }

// Position returns where a new Subscribe goes on if this subscription ends: after
// the last message that Messages has yielded, or where it began. It is nil if the
// channel keeps no history, and for a pattern.
func (s *Subscription) Position() *Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.placed {
		return nil
	}
	at := s.at
	return &at
}

func (s *Subscription) reached(at *Position) {
	if at != nil {
		s.mu.Lock()
		s.at, s.placed = *at, true
		s.mu.Unlock()
	}
}

// Messages yields the messages in order. When the subscription has ended, it
// yields an error and ends: the context's, ErrSlowSubscriber, ErrClosed, or the
// reason for which the app disconnected it. After Close it just ends. It yields a
// *ResetError and goes on. To leave the loop, even by a panic, does not end the
// subscription: the next loop begins after the message that this one was at. Close
// ends it. The bodies are shared with other subscribers: they must not be changed.
func (s *Subscription) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			// One at a time, so that messages stay queued until the loop comes
			// to them.
			f, over := s.outbox.Next()
			switch {
			case f == nil && over:
				if err := s.ctx.Err(); err != nil {
					yield(Message{}, err)
				}
				return
			case f == nil:
				select {
				case <-s.signal:
				case <-s.done:
				}
				rawio.Tell() // the loop is the app's, and may compute for long
				continue
			case f.Last:
				s.finish() // it has read the end, so it no longer counts
				return
			}
			var m Message
			var err error
			switch v := f.Value.(type) {
			case *frame:
				s.reached(v.at())
				m = v.whole()
			case *feedFrame:
				m = v.whole()
			case *notice:
				s.reached(v.at)
				if err = v.err; err == nil {
					continue
				}
			default:
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// A subscriptionOwner is a Subscription as its outbox sees it.
type subscriptionOwner Subscription

// Wake lets Messages go on.
func (s *subscriptionOwner) Wake() { s.signal.Ring() }

// Kill ends the subscription for the hub. What is queued can still be read.
func (s *subscriptionOwner) Kill(err error) {
	s.outbox.End(farewell(visible(err, ErrInternal), closeGoingAway), err, false)
	(*Subscription)(s).finish()
	s.outbox.Disown()
}

// finish takes the subscription out of the hub.
func (s *Subscription) finish() {
	s.finished.Do(func() {
		_, cause := s.outbox.Ended()
		s.leave()
		s.gone(cause)
	})
}

// Close ends the subscription. It may be repeated.
func (s *Subscription) Close() {
	s.stop()
	s.close()
}

func (s *Subscription) close() {
	s.closed.Do(func() {
		s.finish()
		s.outbox.Abandon(nil)
		close(s.done)
	})
}
