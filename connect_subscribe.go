package channels

import (
	"time"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/internal/fanout"
)

// maxEntering bounds the subscriptions of one session that wait for the Store at a time.
const maxEntering = 8

// A joining is a subscription on its way.
type joining struct {
	id    uint32 // of the command
	sub   *subscription
	ch    *channel
	from  start
	token string    // that the client has shown for it
	until time.Time // when the right to it ends; zero: never
	apart bool      // in a goroutine of its own
}

// subscribe answers a subscribe. If that has to wait for the Store, it happens in a
// goroutine, so that a client that comes back does not wait for each of its channels
// in turn. What the client sends then waits for these, except for more of the same.
func (s *session) subscribe(id uint32, r *clientproto.SubscribeRequest) error {
	c, h := s.client, s.client.hub
	if r.Type != 0 || r.Filter {
		return errUnserved
	}
	if err := checkSubscriptionToken(r.Token); err != nil {
		return err
	}
	if isPattern(r.Channel) {
		return s.subscribePattern(id, r)
	}
	if err := CheckName(r.Channel); err != nil {
		return err
	}
	from, err := startOf(r)
	if err != nil {
		return err
	}
	if !h.calls.Enter() { // Shutdown waits for it
		return ErrClosed
	}
	defer h.calls.Leave()
	sub, err := c.subs.reserve(c, r.Channel, h.opts.MaxSubscriptions)
	if err != nil {
		return err
	}
	sub.quiet = !r.JoinLeave
	j := &joining{id: id, sub: sub, from: from, token: r.Token}
	ctx, done := s.whileOpen(s.ctx)
	j.ch, j.until, err = c.ask(ctx, sub, r.Token)
	done()
	if err != nil {
		s.skip(sub)
		return err
	}
	if j.apart = j.ch.asksFor(&j.from); j.apart && s.apart(func() { s.enter(j) }) {
		return nil
	}
	s.enter(j)
	return nil
}

// apart calls f in a goroutine, which is one of the hub's tasks, and ends with the
// Store's answer. It waits while there are maxEntering of them. If the hub is shut
// down, it returns false.
func (s *session) apart(f func()) bool {
	if s.slots == nil {
		s.slots = make(chan struct{}, maxEntering)
	}
	s.slots <- struct{}{}
	s.entering.Add(1)
	ok := s.client.hub.tasks.Run(func() {
		defer s.entering.Done()
		defer func() { <-s.slots }()
		f()
	})
	if !ok {
		s.entering.Done()
		<-s.slots
	}
	return ok
}

// enter attaches a subscription. The reply is queued at the moment from which the
// client gets what is published. It may be called concurrently.
func (s *session) enter(j *joining) {
	c, sub := s.client, j.sub
	o, err := j.ch.open(c.hub.ctx, sub, j.from)
	if err != nil {
		s.stayOut(j, err)
		return
	}
	if f := s.subscribed(j, &o); j.apart {
		s.queuePaced(f)
	} else {
		s.queue(f)
	}
	sub.follow(&o)
	stays := s.settle(sub) // before the reply is written: whoever has read it sees the client in presence
	if j.apart || c.hub.opts.OnSubscribe != nil {
		c.out.Flush() // the reader is elsewhere, or the hook may take its time
	}
	if stays {
		s.began(sub, j.token, j.until)
	}
}

// stayOut ends a subscription that could not be attached.
func (s *session) stayOut(j *joining, err error) {
	j.ch.release()
	s.answered(j.id, err)
	s.skip(j.sub)
	if j.apart {
		s.client.out.Flush() // the reader is elsewhere
	}
}

// began tells of a subscription that stays. For token and until, see holds. It may be
// called concurrently.
func (s *session) began(sub *subscription, token string, until time.Time) {
	s.holds(sub, token, until)
	s.client.welcome(s.ctx, sub)
}

// settle shows an attached subscription, and reports whether it stays: the app may have
// ended it meanwhile, or the connection leaves. It may be called concurrently.
func (s *session) settle(sub *subscription) bool {
	s.client.show(sub)
	if s.client.subs.settle(sub) {
		return true
	}
	s.quit(sub, &unsubscribedByServer)
	return false
}

// startOf is where a client wants to begin. {"last": n} in the data is an extension of
// the hub: the newest n messages.
func startOf(r *clientproto.SubscribeRequest) (from start, err error) {
	var in struct {
		Last *int `json:"last"`
	}
	if len(r.Data) > 0 && r.Data[0] == '{' {
		if err := exact.Unmarshal(r.Data, &in); err != nil {
			return from, ErrBadMessage.saying("data.last has to be a whole number: 0 to %d", maxLast)
		}
	}
	if in.Last != nil {
		from.last = *in.Last
	}
	if from.last < 0 || from.last > maxLast {
		return from, ErrBadMessage.saying("data.last is %d; it has to be 0 to %d", from.last, maxLast)
	}
	if r.Recover { // a client that comes back gets what it missed
		from = start{since: &Position{Epoch: r.Epoch, Offset: r.Offset}, whole: r.Flag&clientproto.FlagRejectUnrecovered != 0}
	}
	from.named = true
	return from, nil
}

// subscribed is the reply to a subscribe.
func (s *session) subscribed(j *joining, o *opening) *fanout.Frame {
	result := subscribeResult(j.ch, j.from.since, o)
	result.Expires, result.TTL = renewable(j.token, j.until)
	return s.replyFrame(&clientproto.Reply{ID: j.id, Subscribe: result})
}

// renewable says how many seconds the client has to renew the token for a subscription.
// Without a token, there is none to renew.
func renewable(token string, until time.Time) (expires bool, seconds uint32) {
	if token == "" {
		return false, 0
	}
	return ttl(until)
}

// subscribeResult says how a subscription begins.
func subscribeResult(ch *channel, since *Position, o *opening) *clientproto.SubscribeResult {
	result := &clientproto.SubscribeResult{WasRecovering: since != nil}
	if ch.opts.HistorySize > 0 {
		result.Recoverable, result.Positioned = true, true
		result.Recovered = since != nil && o.reason == ""
		result.Epoch, result.Offset = o.at.Epoch, o.at.Offset
		result.Publications = publications(o.messages)
	}
	return result
}

// unsubscribe answers an unsubscribe. To end what is not there is no fault: it may
// have ended a moment ago.
func (s *session) unsubscribe(r *clientproto.UnsubscribeRequest, reply *clientproto.Reply) error {
	if one, _ := s.client.subs.take(r.Channel); one != nil {
		s.quit(one, nil)
	}
	reply.Unsubscribe = &clientproto.UnsubscribeResult{}
	return nil
}

// unsubscribed ends a subscription for the app, and reports whether it was there. It
// may be called concurrently.
func (s *session) unsubscribed(channel string, why unsubscribing) bool {
	one, found := s.client.subs.take(channel)
	if one != nil { // if it is still entering, enter sees it
		s.quit(one, &why)
	}
	return found
}

// lost ends a subscription that has missed messages. The client subscribes again, and
// learns that it cannot recover. It may be called concurrently.
func (s *session) lost(sub *subscription) {
	if sub.ofApp { // the client cannot subscribe to it: it connects again
		s.end(endMissed, errMissed)
		return
	}
	s.drop(sub, unsubscribedMissed)
}

// drop ends a subscription if nobody has yet. It may be called concurrently.
func (s *session) drop(sub *subscription, why unsubscribing) {
	if one := s.client.subs.takeThis(sub); one != nil {
		s.quit(one, &why)
	}
}

// quit ends an attached subscription. If the client has not asked for that, it is told
// why, when the subscription has ended, so that it can subscribe again at once. It may
// be called concurrently.
func (s *session) quit(sub *subscription, why *unsubscribing) {
	next := s.client.quit(sub)
	if why != nil {
		s.push(&clientproto.Push{Channel: sub.channel, Unsubscribe: &clientproto.Unsubscribe{Code: why.code, Reason: why.reason}})
	}
	s.start(next)
}
