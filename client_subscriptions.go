package channels

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/fanout"
)

// A subscription is one client's place in one channel.
type subscription struct {
	client  *client
	out     *fanout.Outbox // the client's
	id      string         // the client's, for PublishOptions.Except
	channel string         // the channel's name

	ch    *channel // set by attach
	slot  int32    // in ch.subs, guarded by ch.mu; -1 if it is not in it
	stage stage    // guarded by client.subs.mu
	// own is where the subscriber is, guarded by ch.mu. It is nil if the
	// subscriber is in step: it has what the channel has passed on, and gets
	// what comes.
	own *place
}

type stage uint8

const (
	entering stage = iota // being attached; its goroutine then calls settle or end
	live                  // attached; whoever takes it must call client.quit
	ending                // taken: quit is under way
	ended                 // quit has returned
)

func newSubscription(c *client, channel string) subscription {
	return subscription{client: c, out: c.out, id: c.info.ID, channel: channel, slot: -1}
}

// attach is channel.attach, and releases the channel if that fails.
func (s *subscription) attach(ctx context.Context, ch *channel, since *Position) (began Position, err error) {
	began, err = ch.attach(ctx, s, since)
	if err != nil {
		ch.release()
		return began, err
	}
	if s == &s.client.subs.first {
		s.client.subs.settle(s) // nobody ends it: it is the client's only one
	}
	return began, nil
}

// subscriptions are those of one client. All methods may be called concurrently.
type subscriptions struct {
	first  subscription  // in place, since most clients have one
	policy atomic.Uint32 // a fanout.Policy: see client.answer

	mu   sync.Mutex               // guards the fields below
	left bool                     // the client leaves: none is added any more
	more map[string]*subscription // the others by channel, or nil
}

// findLocked returns the subscription to a channel, or nil.
func (a *subscriptions) findLocked(channel string) *subscription {
	if a.first.channel == channel && a.first.stage != ended {
		return &a.first
	}
	return a.more[channel]
}

// eachLocked calls f for each subscription that nobody has taken.
func (a *subscriptions) eachLocked(f func(*subscription)) {
	if a.first.stage <= live {
		f(&a.first)
	}
	for _, s := range a.more {
		if s.stage <= live {
			f(s)
		}
	}
}

// reserve adds a subscription that is to be attached. settle follows, or end.
func (a *subscriptions) reserve(c *client, channel string) (*subscription, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.left:
		return nil, ErrUnsubscribed
	case a.findLocked(channel) != nil:
		return nil, ErrBadMessage.saying("this connection is subscribed to %q already", channel)
	}
	s := newSubscription(c, channel)
	if a.more == nil {
		a.more = make(map[string]*subscription)
	}
	a.more[channel] = &s
	return &s, nil
}

// settle makes an attached subscription live. If it was taken meanwhile, settle
// returns false, and the caller calls client.quit.
func (a *subscriptions) settle(s *subscription) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.stage != entering {
		return false
	}
	s.stage = live
	s.channel = s.ch.name // so that no memory of the request is kept
	a.decideLocked()
	return true
}

// end forgets a subscription that is not attached, or not any more. Until then,
// the channel cannot be subscribed to again: its presence shows a client once. It
// returns whether the client, which does not leave, has no subscription any more.
func (a *subscriptions) end(s *subscription) (none bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.stage = ended
	if s != &a.first {
		delete(a.more, s.channel)
	}
	a.decideLocked()
	none = !a.left
	a.eachLocked(func(*subscription) { none = false })
	return none
}

// take ends the subscription to a channel, and reports whether it was there. If it was
// live, it is returned for client.quit; if not, whoever attaches it sees that it is
// taken. The client's only one stays: then last is true, and the caller ends the client.
func (a *subscriptions) take(channel string) (one *subscription, last, found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.findLocked(channel)
	if s == nil || s.stage > live {
		return nil, false, false
	}
	n := 0
	a.eachLocked(func(*subscription) { n++ })
	if n == 1 {
		return nil, true, true
	}
	if s.stage == live {
		one = s
	}
	s.stage = ending
	return one, false, true
}

// takeAny takes the subscriptions of a client that leaves which are entering, and one
// that is live. It returns that, or nil.
func (a *subscriptions) takeAny() (one *subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true
	a.eachLocked(func(s *subscription) {
		if s.stage == entering {
			s.stage = ending
		} else {
			one = s
		}
	})
	if one != nil {
		one.stage = ending
	}
	return one
}

// decideLocked sets the policy for what the hub itself says to the client: of its
// channels' policies, the one that drops least, which is the smallest constant.
func (a *subscriptions) decideLocked() {
	policy, any := ^fanout.Policy(0), false
	a.eachLocked(func(s *subscription) {
		if s.stage == live {
			policy, any = min(policy, s.ch.opts.SlowSubscriber.policy()), true
		}
	})
	if any {
		a.policy.Store(uint32(policy))
	}
}
