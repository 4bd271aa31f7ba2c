package channels

import (
	"context"
	"errors"

	"github.com/channels-go/channels/internal/clientproto"
)

// Server-side subscriptions are those that the app asks for (subscribe_user.go), and
// not the client. Those that it asks for until the reply to connect are in that; a push
// tells of the others. Otherwise they are like the client's own, with these exceptions:
// they have no end, Authorize is not asked, and if one has missed messages, the client
// has to connect again.

// hello is how far a session's connect is.
type hello uint8

const (
	helloAwaited  hello = iota // nothing is known of the client, or OnConnect has refused it
	helloHeard                 // OnConnect is asked, or the reply is on its way
	helloAnswered              // the reply is queued
)

var errMissed = errors.New("channels: a server-side subscription has missed messages")

// invites has the session take what the app wants from now on.
func (s *session) invites() {
	s.mu.Lock()
	s.hello = helloHeard
	s.mu.Unlock()
}

// takeInvited returns what the app has asked for since it was called last, and moves
// on to a stage.
func (s *session) takeInvited(to hello) []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	subs := s.invited
	s.hello, s.invited = to, nil
	return subs
}

// uninvite forgets what the app has asked for, since it does not let the client in.
func (s *session) uninvite() {
	for _, sub := range s.takeInvited(helloAwaited) {
		s.client.subs.cancel(sub)
	}
}

// cancel ends a subscription that is not attached, for good.
func (a *subscriptions) cancel(s *subscription) {
	for s != nil {
		s = a.end(s)
	}
}

// invite reserves a subscription for the app. If connect attaches it, later is true.
// If it is returned, enterInvited follows, or subscriptions.cancel. It may be called
// concurrently, and waits for nobody.
func (s *session) invite(channel string) (sub *subscription, later bool, err error) {
	c := s.client
	sub, err = c.subs.invite(c, channel, c.hub.opts.MaxSubscriptions)
	if sub == nil {
		return nil, false, err
	}
	s.mu.Lock()
	stage := s.hello
	if stage == helloHeard {
		s.invited = append(s.invited, sub)
	}
	s.mu.Unlock()
	switch stage {
	case helloAnswered:
		return sub, false, nil
	case helloAwaited: // OnConnect is yet to be asked
		c.subs.cancel(sub)
	}
	return nil, stage == helloHeard, nil
}

// enterInvited attaches a subscription that the app has asked for. A push tells the
// client of it. It may be called concurrently.
func (s *session) enterInvited(ctx context.Context, sub *subscription) error {
	c := s.client
	ch, err := c.hub.use(sub.channel, true)
	if err != nil {
		s.skip(sub)
		return err
	}
	o, err := ch.open(ctx, sub, start{named: true})
	if err != nil {
		ch.release()
		s.skip(sub)
		return err
	}
	r := subscribeResult(ch, nil, &o)
	s.push(&clientproto.Push{Channel: sub.channel, Subscribe: &clientproto.Subscribe{
		Recoverable: r.Recoverable, Positioned: r.Positioned, Epoch: r.Epoch, Offset: r.Offset}})
	sub.follow(&o)
	if s.settle(sub) {
		c.welcome(WithIdentity(c.hub.ctx, c.identity()), sub)
	}
	return nil
}

// skip gives up a subscription that is not attached. It may be called concurrently.
func (s *session) skip(sub *subscription) { s.start(s.client.subs.end(sub)) }

// start attaches what subscriptions.end has returned. It may be called concurrently.
func (s *session) start(next *subscription) {
	if next == nil {
		return
	}
	h := s.client.hub
	ok := h.tasks.Run(func() {
		if err := s.enterInvited(h.ctx, next); err != nil {
			h.warn.notSubscribed(next.channel, err)
		}
	})
	if !ok { // the hub is shut down, and the connection is about to end
		s.client.subs.cancel(next)
	}
}

// A begun is a subscription in the reply to connect.
type begun struct {
	sub     *subscription
	ch      *channel
	from    start
	opening opening
	err     error
}

// open attaches the subscriptions that the app has asked for in OnConnect. What their
// channels publish is held until follow. asked is where the client was in each channel.
func (s *session) open(ctx context.Context, asked map[string]*clientproto.SubscribeRequest) ([]begun, error) {
	subs := s.takeInvited(helloHeard)
	if len(subs) == 0 {
		return nil, nil
	}
	all := make([]begun, len(subs))
	share := s.client.out.Limit() / 2 / len(subs) // the reply is one frame
	for i, sub := range subs {
		b := &all[i]
		b.sub, b.from.named = sub, true
		if r := asked[sub.channel]; r != nil && r.Recover {
			b.from.since = &Position{Epoch: r.Epoch, Offset: r.Offset}
		}
		if b.ch, b.err = s.client.hub.use(sub.channel, true); b.err != nil {
			continue
		}
		open := func() {
			if b.opening, b.err = b.ch.open(ctx, sub, b.from); b.err == nil {
				b.opening.shorten(share)
			}
		}
		if !b.ch.asksFor(&b.from) || !s.apart(open) {
			open()
		}
	}
	s.entering.Wait()
	for i := range all {
		if err := all[i].err; err != nil {
			s.cancel(all)
			return nil, err
		}
	}
	return all, nil
}

// cancel undoes open.
func (s *session) cancel(all []begun) {
	for i := range all {
		b := &all[i]
		if b.ch != nil {
			b.ch.detach(b.sub)
			b.ch.release()
		}
		s.client.subs.cancel(b.sub)
	}
	s.uninvite()
}

// results is what the reply to connect says of subscriptions.
func results(all []begun) map[string]*clientproto.SubscribeResult {
	if len(all) == 0 {
		return nil
	}
	subs := make(map[string]*clientproto.SubscribeResult, len(all))
	for i := range all {
		b := &all[i]
		subs[b.sub.channel] = subscribeResult(b.ch, b.from.since, &b.opening)
	}
	return subs
}

// follow lets subscriptions go on after the reply to connect, and attaches those that
// the app has asked for meanwhile.
func (s *session) follow(all []begun) {
	c := s.client
	later := s.takeInvited(helloAnswered)
	if len(all) > 0 {
		c.out.Flush() // the app's hooks may wait
	}
	for i := range all {
		b := &all[i]
		b.sub.follow(&b.opening)
		if s.settle(b.sub) {
			c.welcome(s.ctx, b.sub)
		}
	}
	for _, sub := range later {
		s.start(sub)
	}
}
