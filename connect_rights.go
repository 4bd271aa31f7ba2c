package channels

import (
	"errors"
	"strings"
	"time"

	"github.com/channels-go/channels/internal/clientproto"
)

// A right is what a session's subscription depends on, besides who the client is.
type right struct {
	shown bool   // the client has shown a token for it
	token string // that token, if the right has no end
	// timer ends the subscription some time after the right has ended. It is nil if
	// the right has no end.
	timer *time.Timer
}

// maxSubscriptionToken bounds the token of a subscription, which may have to be kept.
// The tokens that middleware.JWT takes are no longer either.
const maxSubscriptionToken = 8 << 10

func checkSubscriptionToken(token string) error {
	if len(token) > maxSubscriptionToken {
		return ErrTooLarge.saying("the subscription's token has %d bytes; it may have up to %d", len(token), maxSubscriptionToken)
	}
	return nil
}

// holds says what a subscription depends on: the token that the client has shown for
// it, and until when the app allows it. Either may be missing. It may be called
// concurrently with what ends the subscription.
func (s *session) holds(sub *subscription, token string, until time.Time) {
	if token == "" && until.IsZero() && sub.right == nil {
		return
	}
	r := &right{shown: token != ""}
	if until.IsZero() {
		r.token = strings.Clone(token) // of a frame that is not kept
	}
	a := &s.client.subs
	a.mu.Lock()
	defer a.mu.Unlock()
	sub.right.stop()
	if sub.stage != live {
		return
	}
	if sub.right = r; !until.IsZero() {
		r.timer = time.AfterFunc(untilGrace(until), func() { s.drop(sub, unsubscribedExpired) })
	}
}

func (r *right) stop() {
	if r != nil && r.timer != nil {
		r.timer.Stop()
	}
}

// refreshError is what a client is told whose new token is refused. Of one that has
// expired it is told that this passes, since the old one may still be good: SDKs then
// ask the app for another, and otherwise give up at once.
func refreshError(err error) error {
	if errors.Is(err, ErrExpired) {
		return errOldToken
	}
	return err
}

// refreshSubscription renews the right to a subscription by a new token.
func (s *session) refreshSubscription(r *clientproto.SubRefreshRequest, reply *clientproto.Reply) error {
	c := s.client
	if r.Type != 0 {
		return errUnserved
	}
	sub := c.subs.find(r.Channel)
	switch {
	case sub == nil:
		return ErrForbidden.saying("this connection is not subscribed to %.200q", r.Channel)
	case sub.ofApp:
		return errUnserved.saying("the server has subscribed this connection to %.200q, so it needs no token", r.Channel)
	}
	if err := checkSubscriptionToken(r.Token); err != nil {
		return err
	}
	until, err := s.askFor(sub, r.Token)
	if err != nil {
		return refreshError(err)
	}
	s.holds(sub, r.Token, until)
	result := clientproto.SubRefreshResult{}
	result.Expires, result.TTL = ttl(until)
	reply.SubRefresh = &result
	return nil
}

// askFor asks the app whether the client may have a subscription, and until when.
func (s *session) askFor(sub *subscription, token string) (until time.Time, err error) {
	var r Request
	s.client.fill(&r, sub, token)
	return s.client.hub.authorizeUntil(s.ctx, &r)
}

// askAgain asks the app again whether the client may have its subscriptions, after its
// identity has changed. Those that end with a token of their own do not depend on that,
// nor do those that the app has asked for.
func (s *session) askAgain() {
	c := s.client
	if c.hub.opts.Authorize == nil {
		return
	}
	for _, sub := range c.subs.all() {
		if sub.ofApp {
			continue
		}
		token := ""
		if r := sub.right; r != nil && r.shown {
			if r.timer != nil {
				continue
			}
			token = r.token
		}
		until, err := s.askFor(sub, token)
		if err == nil {
			s.holds(sub, token, until)
			continue
		}
		why := unsubscribedByServer
		if e := visible(err, ErrForbidden); e.passes() || e.status() >= 500 || e.Is(ErrExpired) {
			why = unsubscribedExpired // it comes back, and is asked again
		}
		s.drop(sub, why)
	}
}
