package channels

import "context"

// An opening is how a subscription begins. What comes meanwhile is held until follow.
type opening struct {
	beginning
	own         *place
	top, before Position // the Store's top, and heldFrom before it was read
}

// open attaches s. follow comes next.
func (ch *channel) open(ctx context.Context, s *subscription, since *Position) (o opening, err error) {
	err = ch.prepare(ctx, s)
	if o, err = ch.openPrepared(s, err); err != nil {
		return o, err
	}
	if since == nil || ch.opts.HistorySize == 0 {
		return o, nil
	}
	if o.recovered = *since == o.at; o.recovered {
		return o, nil
	}
	o.before = s.heldFrom(o.own)
	page, err := ch.readShared(ctx, since.Offset)
	if err != nil {
		ch.env.storeFailed(err)
		ch.detach(s)
		return o, ErrStoreUnavailable.because(err)
	}
	o.top = Position(page.Top)
	o.beginning = *ch.begin(*since, &page)
	return o, nil
}

func (ch *channel) openPrepared(s *subscription, err error) (opening, error) {
	var o opening
	idle := false
	ch.mu.Lock()
	ch.order.waiting--
	if err != nil {
		idle = ch.restLocked()
	} else {
		ch.attachLocked(s)
		pos := ch.order.pos
		o.own = &place{reading: true, limit: s.out.Limit() / 2, from: pos}
		o.at, o.top, o.before = pos, pos, pos
		s.own = o.own
	}
	ch.mu.Unlock()
	if idle {
		ch.unlisten()
	}
	return o, err
}

// shorten drops the newest messages until the others take at most n bytes. follow
// reads them again.
func (o *opening) shorten(n int) {
	for i := range o.publications {
		if n -= 64 + len(o.publications[i].Data); n < 0 {
			o.at.Offset = o.publications[i].Offset - 1
			o.publications = o.publications[:i]
			return
		}
	}
}

// follow lets the subscriber get what comes after its opening.
func (s *subscription) follow(o *opening) {
	at, done := o.at, false
	if more := at.Epoch == o.top.Epoch && at.Offset < o.top.Offset; !more {
		at, done = s.join(o.own, at, o.top, o.before)
	}
	if !done {
		s.ch.env.tasks.Run(func() { s.catchUp(o.own, at, false) })
	}
}
