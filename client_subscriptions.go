package channels

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/fanout"
)

// A subscription is one client's place in one channel, or in the feed of one pattern.
type subscription struct {
	// What fanOutLocked looks at comes first: it is near at the cost of one cache line.

	out *fanout.Outbox // the client's
	// own is where the subscriber is, guarded by ch.mu. It is nil if the
	// subscriber is in step: it has what the channel has passed on, and gets
	// what comes.
	own   *place
	slot  int32 // in the subs of ch or feed, guarded by their mu; -1 if it is not in it
	stage stage // guarded by client.subs.mu
	again bool  // the app has asked for it while it was not live, guarded by client.subs.mu
	// These two are set before attach.
	quiet bool // it does not want the channel's events
	ofApp bool // the app has asked for it itself (connect_serverside.go)

	client  *client
	channel string   // the channel's name, or the pattern: names have no * and ?
	ch      *channel // set by attach
	feed    *feed    // set by feed.attach; then ch is nil

	// right is what it depends on, besides who the client is: nil for most. It is set
	// in order with the session's commands, and with client.subs.mu held.
	right *right
}

type stage uint8

const (
	entering stage = iota // being attached; its goroutine then calls settle or end
	live                  // attached; whoever takes it must call client.quit
	ending                // taken: quit is under way
	ended                 // quit has returned
)

// newSubscription is for one caller at a time.
func newSubscription(c *client, channel string) *subscription {
	s := &c.subs.one
	if s.client != nil { // it was used already
		s = new(subscription)
	}
	*s = subscription{client: c, out: c.out, channel: channel, slot: -1}
	return s
}

// attach is channel.attach, and releases the channel if that fails.
func (s *subscription) attach(ctx context.Context, ch *channel, from start) (began Position, err error) {
	began, err = ch.attach(ctx, s, from)
	if err != nil {
		ch.release()
	}
	return began, err
}

// name is the channel's name, or the pattern.
func (s *subscription) name() string {
	if s.feed != nil {
		return s.feed.pattern.String()
	}
	return s.ch.name
}

// policy is what happens if the client is too slow for it.
func (s *subscription) policy() fanout.Policy {
	if s.feed != nil {
		return s.feed.policy
	}
	return s.ch.opts.SlowSubscriber.policy()
}

// subscriptions are those of one client. All methods may be called concurrently.
type subscriptions struct {
	// one is the client's first, which so makes no object of its own, though it keeps its
	// channel as long as the client lives. It stands first so that what fanOutLocked looks at
	// is in one cache line (TestOutboxBeginsACacheLine).
	one subscription

	policy atomic.Uint32 // a fanout.Policy: see client.answer

	mu   sync.Mutex // guards the fields below
	left bool       // the client leaves: none is added any more
	// first is the one with which a client of one channel comes. Otherwise it is any,
	// since most clients have one: its stage says whether it is still there.
	first *subscription
	more  map[string]*subscription // the others by channel, or nil
	n     int32                    // those that nobody has taken
	live  [fanout.Policies]int32   // of these, the attached ones, by policy
}

// findLocked returns the subscription to a channel, or nil.
func (a *subscriptions) findLocked(channel string) *subscription {
	if a.first != nil && a.first.channel == channel && a.first.stage != ended {
		return a.first
	}
	return a.more[channel]
}

// start adds the subscription with which a client of one channel comes. settle
// follows, or end.
func (a *subscriptions) start(s *subscription) { a.first, a.n = s, 1 }

// reserve adds a subscription that is to be attached. settle follows, or end. The
// client may have up to most.
func (a *subscriptions) reserve(c *client, channel string, most int) (*subscription, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.findLocked(channel)
	switch {
	case a.left:
		return nil, ErrUnsubscribed
	case s != nil && s.stage > live:
		return nil, errUnsubscribing
	case s != nil:
		return nil, errSubscribed.saying("this connection is subscribed to %q already", channel)
	case int(a.n) >= most:
		return nil, tooManySubscriptions(most)
	}
	return a.addLocked(c, channel), nil
}

func (a *subscriptions) addLocked(c *client, channel string) *subscription {
	s := newSubscription(c, channel)
	a.n++
	switch {
	case a.first == nil || a.first.stage == ended:
		a.first = s
	case a.more == nil:
		a.more = map[string]*subscription{channel: s}
	default:
		a.more[channel] = s
	}
	return s
}

// invite is reserve for the app. It returns nil if there is nothing to attach, since
// the client leaves or is subscribed. If the subscription is on its way, or is ending,
// end decides what comes of that.
func (a *subscriptions) invite(c *client, channel string, most int) (*subscription, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.findLocked(channel)
	switch {
	case a.left:
		return nil, nil
	case s != nil:
		s.again = s.stage != live
		return nil, nil
	case int(a.n) >= most:
		return nil, tooManySubscriptions(most)
	}
	s = a.addLocked(c, channel)
	s.ofApp = true
	return s, nil
}

func tooManySubscriptions(most int) error {
	return errTooManySubscriptions.saying("this connection has reached its limit of %d subscriptions; unsubscribe from a channel first", most)
}

// settle makes an attached subscription live. If it was taken meanwhile, settle
// returns false, and the caller calls client.quit.
func (a *subscriptions) settle(s *subscription) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.stage != entering {
		return false
	}
	s.stage, s.again = live, false
	s.channel = s.name() // so that no memory of the request is kept
	if s != a.first {
		a.more[s.channel] = s // which replaces the key, too
	}
	a.live[s.policy()]++
	a.decideLocked()
	return true
}

// takeLocked takes a subscription that is entering or live. If it was live, it is
// returned for client.quit; if not, whoever attaches it sees that it is taken.
func (a *subscriptions) takeLocked(s *subscription) *subscription {
	was := s.stage
	s.stage, s.again = ending, false
	a.n--
	s.right.stop()
	if was != live {
		return nil
	}
	a.live[s.policy()]--
	a.decideLocked()
	return s
}

// end forgets a subscription that is not attached, or not any more. Until then,
// the channel cannot be subscribed to again: its presence shows a client once. If the
// app has asked for that meanwhile, end returns a subscription that is to be attached,
// or ended.
func (a *subscriptions) end(s *subscription) (next *subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	again := s.again && !a.left
	if s.stage <= live {
		a.takeLocked(s)
	}
	s.stage = ended
	if s != a.first {
		delete(a.more, s.channel)
	}
	if again && int(a.n) < s.client.hub.opts.MaxSubscriptions {
		next = a.addLocked(s.client, s.channel)
		next.ofApp = true
	}
	return next
}

// take ends the subscription to a channel, and reports whether it was there. For the
// result one, see takeLocked.
func (a *subscriptions) take(channel string) (one *subscription, found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.findLocked(channel)
	switch {
	case s == nil:
		return nil, false
	case s.stage > live:
		found, s.again = s.again, false
		return nil, found
	}
	return a.takeLocked(s), true
}

// find returns the subscription to a channel, unless somebody has taken it.
func (a *subscriptions) find(channel string) *subscription {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.findLocked(channel); s != nil && s.stage <= live {
		return s
	}
	return nil
}

// count returns how many there are that nobody has taken.
func (a *subscriptions) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.n)
}

// all returns the live subscriptions.
func (a *subscriptions) all() []*subscription {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*subscription, 0, a.n)
	if a.first != nil && a.first.stage == live {
		all = append(all, a.first)
	}
	for _, s := range a.more {
		if s.stage == live {
			all = append(all, s)
		}
	}
	return all
}

// takeThis is take for a subscription that may have ended meanwhile.
func (a *subscriptions) takeThis(s *subscription) (one *subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.stage > live {
		return nil
	}
	return a.takeLocked(s)
}

// takeAll takes the subscriptions of a client that leaves. It returns those that
// client.quit has to be called for.
func (a *subscriptions) takeAll() (first *subscription, more []*subscription) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = true // so that again means nothing any more
	if a.first != nil && a.first.stage <= live {
		first = a.takeLocked(a.first)
	}
	for _, s := range a.more {
		if s.stage <= live && a.takeLocked(s) != nil {
			more = append(more, s)
		}
	}
	return first, more
}

// decideLocked sets the policy for what the hub itself says to the client: of its
// channels' policies, the one that drops least, which is the smallest constant.
func (a *subscriptions) decideLocked() {
	for policy, n := range a.live {
		if n > 0 {
			a.policy.Store(uint32(policy))
			return
		}
	}
}
