package channels

import (
	"github.com/channels-go/channels/internal/clientproto"
)

// subscribePattern answers a subscribe to all channels that a pattern matches. It asks
// nothing of the Store: there is nothing to recover, so what the client says of that is
// ignored.
func (s *session) subscribePattern(id uint32, r *clientproto.SubscribeRequest) error {
	c, h := s.client, s.client.hub
	p, err := compilePattern(r.Channel) // first, so that Authorize sees patterns only
	if err != nil {
		return err
	}
	if !h.calls.Enter() { // Shutdown waits for it
		return ErrClosed
	}
	defer h.calls.Leave()
	sub, err := c.subs.reserve(c, p.String(), h.opts.MaxSubscriptions)
	if err != nil {
		return err
	}
	ctx, done := s.whileOpen(s.ctx)
	until, err := c.mayCome(ctx, sub, r.Token)
	done()
	var fd *feed
	if err == nil {
		fd, err = h.useFeed(p)
	}
	if err != nil {
		s.skip(sub)
		return err
	}
	result := clientproto.SubscribeResult{WasRecovering: r.Recover}
	result.Expires, result.TTL = renewable(r.Token, until)
	fd.attach(sub, s.replyFrame(&clientproto.Reply{ID: id, Subscribe: &result}))
	if h.opts.OnSubscribe != nil {
		c.out.Flush() // the hook may take its time
	}
	if s.settle(sub) {
		s.began(sub, r.Token, until)
	}
	return nil
}
