package channels

import (
	"context"
	"iter"
	"sync"
)

// A Subscription is a channel's messages for Go code in the same process,
// under the same rules as a connection: order, recovery, and a bounded queue.
// Its methods may be called by many goroutines, but Messages by one at a time.
type Subscription struct {
	client
	signal chan struct{} // something is queued
	done   chan struct{} // closed by Close
	stop   func() bool   // ends what watches the context
	ctx    context.Context

	finished, closed sync.Once
}

// Subscribe subscribes to a channel at once: what is published after it
// returns reaches Messages. With from, which [Hub.History] and each message
// tell, it begins behind that position: first what was missed, then what
// comes, or a [ResetError] where that is no longer possible. The zero Position
// is before the first message; nil means from now on.
//
// The hooks for connections are not called, and no presence shows it.
//
// The subscription ends with ctx, with Close, or with the hub. A subscriber
// that does not read gets what ChannelOptions.SlowSubscriber says; with
// SlowClose its Messages end with [ErrSlowSubscriber].
func (h *Hub) Subscribe(ctx context.Context, channel string, from *Position) (*Subscription, error) {
	if !h.calls.enter() {
		return nil, ErrClosed
	}
	defer h.calls.leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ch, err := h.use(channel)
	if err != nil {
		return nil, err
	}
	s := &Subscription{signal: make(chan struct{}, 1), done: make(chan struct{}), ctx: ctx}
	id, _ := IdentityFrom(ctx)
	h.initClient(&s.client, s, formatGo, Client{ID: h.clients.newID(h.opts.Node), Identity: id, Transport: transportGo})
	if err := ch.attach(ctx, &s.sub, from); err != nil {
		ch.release()
		return nil, err
	}
	s.admit()
	s.stop = context.AfterFunc(ctx, s.close)
	return s, nil
}

// ID returns the id for PublishOptions.Except.
func (s *Subscription) ID() string { return s.info.ID }

// Messages yields the messages in order. It yields an error and ends where
// the subscription has ended: with the context's error, ErrSlowSubscriber,
// ErrClosed, or the reason for which the app disconnected it; after Close it
// just ends. It yields a *ResetError and goes on. Leaving the loop does not
// end the subscription; Close does. The bodies are shared with other
// subscribers: they must not be changed.
func (s *Subscription) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		var frames []*frame
		for {
			ended, _ := s.ended() // asked first: the last frames are queued with it
			frames = s.take(frames[:0], writeBytes)
			if len(frames) == 0 && ended {
				if err := s.ctx.Err(); err != nil {
					yield(Message{}, err)
				}
				return
			}
			for i, f := range frames {
				switch {
				case f.last:
					s.finish() // what is counted as a subscriber reads on
					return
				case f.err != nil:
					if !yield(Message{}, f.err) {
						s.putBack(frames[i+1:])
						return
					}
				case f.msg != nil:
					if !yield(*f.msg, nil) {
						s.putBack(frames[i+1:])
						return
					}
				}
			}
			if len(frames) > 0 {
				clear(frames)
				continue
			}
			select {
			case <-s.signal:
			case <-s.done:
			}
		}
	}
}

// putBack returns frames that were taken and not read, for the next Messages.
func (s *Subscription) putBack(frames []*frame) {
	if len(frames) == 0 {
		return // it is still the drainer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := append([]*frame(nil), frames...)
	for _, f := range frames {
		s.countLocked(f.size())
	}
	s.q, s.head = append(q, s.q[s.head:]...), 0
	s.scheduled = true
	s.wake()
}

func (s *Subscription) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// kill ends the subscription for the hub. What is queued can still be read.
func (s *Subscription) kill(err error) {
	s.end(farewell(visible(err, ErrInternal), closeGoingAway), err, false)
	s.finish()
}

// finish takes the subscription out of the hub.
func (s *Subscription) finish() {
	s.finished.Do(func() {
		_, cause := s.ended()
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
		s.abandon(nil)
		close(s.done)
	})
}
