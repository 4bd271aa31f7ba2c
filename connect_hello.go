package channels

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/channels-go/channels/internal/clientproto"
)

const (
	// connectTime is how long a connection may exist without a connect, in seconds.
	connectTime = 10
	// expiryGrace is how long an identity, or the right to a subscription, is good
	// after its end: the client has begun to refresh it then.
	expiryGrace = 25 * time.Second
)

// connect answers the first command: it asks the app who the client is, and whether
// it may come. After an error the client may try again.
func (s *session) connect(cmd uint32, r *clientproto.ConnectRequest, bad error) error {
	c, h := s.client, s.client.hub
	if bad != nil {
		return ErrBadMessage.saying("%v", bad)
	}
	if !h.calls.Enter() { // Shutdown waits for it
		return ErrClosed
	}
	defer h.calls.Leave()
	// Not of h.ctx, since to be one of its many children costs more than the rest: when
	// the hub ends, so does the client.
	ctx, done := s.whileOpen(context.Background())
	defer done()
	if err := s.recognize(ctx, r); err != nil {
		return err
	}
	if ended, _ := c.out.Ended(); ended { // while the app was asked
		return errEnded
	}
	s.invites()
	if h.opts.OnConnect != nil {
		if err := c.connected(WithIdentity(ctx, c.info.Identity)); err != nil {
			s.uninvite()
			return err
		}
	}
	s.connected = true // from here on OnDisconnect follows
	begun, err := s.open(ctx, r.Subs)
	if err != nil {
		s.end(endInternal, err)
		return errEnded
	}
	c.admit()
	s.connectReply(cmd, r, begun)
	s.follow(begun)
	return nil
}

// maxTries is how often a connection may say connect: who has no token that is good does
// not stay by sending a bad one every few seconds.
const maxTries = 5

var errKeptOut = errors.New("channels: none of the client's attempts to connect has succeeded")

// keptOut tells the client why its connect failed. It may try again, but not for ever.
func (s *session) keptOut(cmd uint32, err error) error {
	if err != errEnded {
		s.client.hub.stats.handshakes.add(codeOf(err))
	}
	if panicked := s.answered(cmd, err); panicked != nil {
		return panicked
	}
	switch {
	case s.tries < maxTries:
		s.client.hub.clients.await(s.client)
	case replyError(err).Temporary: // it may come back
		s.end(endInternal, errKeptOut)
	default:
		s.end(endStale, errKeptOut)
	}
	return nil
}

// recognize makes the client who its token says it is, or the app's middleware.
func (s *session) recognize(ctx context.Context, r *clientproto.ConnectRequest) (err error) {
	h := s.client.hub
	id, banned := s.client.info.Identity, h.clients.lastBan()
	if h.opts.Authenticate != nil && (r.Token != "" || !s.known) {
		if id, err = s.authenticate(ctx, r.Token, r.Data); err != nil {
			return err
		}
	}
	return s.identify(id, banned)
}

// connectReply replies to a connect.
func (s *session) connectReply(cmd uint32, r *clientproto.ConnectRequest, begun []begun) {
	c, h := s.client, s.client.hub
	result := clientproto.ConnectResult{
		Client: c.info.ID, Version: serverVersion, Node: h.opts.ReplicaID,
		Ping: uint32(h.opts.PingPeriod / time.Second), Pong: true, Session: s.key, Subs: results(begun),
	}
	if r.Token != "" { // without one, there is none that the client could renew
		result.Expires, result.TTL = ttl(c.info.Identity.Expires)
	}
	s.reply(&clientproto.Reply{ID: cmd, Connect: &result})
}

// serverVersion is what SDKs show as the server's version. It is that of the protocol.
const serverVersion = "channels 2"

// whileOpen returns a context that ends with the connection, for one call of the app's
// code. The caller calls done.
func (s *session) whileOpen(ctx context.Context) (_ context.Context, done func()) {
	open := &coming{Context: ctx}
	s.client.out.WhenOver(open.end)
	return open, func() {
		s.client.out.WhenOver(nil)
		open.end()
	}
}

// identify makes the client who the app says it is, unless the app has disconnected
// this user since the ban.
func (s *session) identify(id Identity, since *ban) error {
	if id.grace = 0; !id.Expires.IsZero() {
		id.grace = expiryGrace
	}
	if id.expiredFor(0) {
		return ErrExpired
	}
	if err := s.client.hub.checkInfo(&id); err != nil {
		return err
	}
	if !s.become(id, since) {
		s.end(endDisconnected, ErrDisconnected)
		return errEnded
	}
	return nil
}

// authenticate asks the app who a token is of. A wrong token ends the session.
func (s *session) authenticate(ctx context.Context, token string, data json.RawMessage) (id Identity, err error) {
	h := s.client.hub
	err = h.guard("Authenticate", func() (err error) {
		id, err = h.opts.Authenticate(ctx, token, append(json.RawMessage(nil), data...))
		return err
	})
	switch {
	case err == nil:
		return id, nil
	case isPanic(err), errors.Is(err, ErrExpired):
		return id, err
	case ctx.Err() != nil:
		return id, errEnded
	case errors.Is(err, context.DeadlineExceeded):
		return id, ErrInternal.because(err)
	}
	err = h.refusal("Authenticate", err)
	if e := visible(err, ErrForbidden); e.passes() || e.status() >= 500 {
		return id, e // it may succeed later
	}
	s.end(endBadToken, err)
	return id, errEnded
}

// become sets who the client is, and when that ends. It returns false if the user was
// banned meanwhile.
func (s *session) become(id Identity, since *ban) bool {
	c := s.client
	ok := c.hub.clients.identify(c, id.ID, since, func() {
		s.mu.Lock()
		c.info.Identity = id
		s.mu.Unlock()
	})
	if !ok {
		return false
	}
	s.ctx = WithIdentity(c.hub.ctx, id)
	switch {
	case !id.Expires.IsZero():
		left := untilGrace(id.Expires)
		if c.expiry == nil {
			c.expiry = time.AfterFunc(left, func() { s.end(endExpired, ErrExpired) })
		} else {
			c.expiry.Reset(left)
		}
	case c.expiry != nil:
		c.expiry.Stop()
	}
	return true
}

// untilGrace is how long it is until the grace after a time is over. For a time in the
// year 9999, time.Until is the longest Duration, to which nothing can be added.
func untilGrace(t time.Time) time.Duration {
	return min(time.Until(t), math.MaxInt64-expiryGrace) + expiryGrace
}

// ttl says how many seconds are left until a time, if it is one.
func ttl(until time.Time) (expires bool, seconds uint32) {
	if until.IsZero() {
		return false, 0
	}
	const longest = 1<<31 - 1
	left := min(time.Until(until), longest*time.Second)
	return true, uint32(max((left+time.Second-1)/time.Second, 1))
}

// refresh gives the client a new token, before the old one ends. What it may do now
// holds for the subscriptions it has, too.
func (s *session) refresh(r *clientproto.RefreshRequest, reply *clientproto.Reply) error {
	c, h := s.client, s.client.hub
	if h.opts.Authenticate == nil {
		return errUnserved.saying("this server takes no tokens; Options.Authenticate is not set")
	}
	if !h.calls.Enter() {
		return ErrClosed
	}
	defer h.calls.Leave()
	ctx, done := s.whileOpen(s.ctx)
	defer done()
	banned := h.clients.lastBan()
	id, err := s.authenticate(ctx, r.Token, nil)
	if err != nil {
		return refreshError(err)
	}
	if id.ID != c.info.Identity.ID {
		s.end(endBadToken, ErrForbidden.saying("the new token is another user's"))
		return errEnded
	}
	if err := s.identify(id, banned); err != nil {
		return refreshError(err)
	}
	result := clientproto.RefreshResult{Client: c.info.ID, Version: serverVersion}
	result.Expires, result.TTL = ttl(id.Expires)
	reply.Refresh = &result
	s.askAgain()
	return nil
}
