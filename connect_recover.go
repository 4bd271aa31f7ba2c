package channels

import (
	"context"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/store"
)

// A beginning is where a subscriber of the client protocol begins.
type beginning struct {
	at           Position // after publications
	recovered    bool     // it has missed nothing, or gets it
	publications []clientproto.Publication
}

// greet is attach for the client protocol. The frame that welcome makes is the first
// that the subscriber gets of the channel. It may be made with the channel's lock held.
// The caller flushes the outbox.
//
// With since, one read of the Store decides whether the subscriber can go on from
// there. What the read has brought is in the frame, and the rest follows.
func (ch *channel) greet(ctx context.Context, s *subscription, since *Position, welcome func(*beginning) *fanout.Frame) error {
	err := ch.prepare(ctx, s)
	own, idle := ch.greetPrepared(s, since, welcome, err)
	if idle {
		ch.unlisten()
	}
	if err != nil || own == nil {
		return err
	}
	return s.recover(ctx, own, *since, welcome)
}

// greetPrepared attaches the subscriber. If it is behind, it is held at the place that
// is returned. err is why it cannot be attached.
func (ch *channel) greetPrepared(s *subscription, since *Position, welcome func(*beginning) *fanout.Frame, err error) (own *place, idle bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.order.waiting--
	if err != nil {
		return nil, ch.restLocked()
	}
	ch.attachLocked(s)
	pos := ch.order.pos
	if ch.opts.HistorySize == 0 || since == nil || *since == pos {
		s.out.Queue(welcome(&beginning{at: pos, recovered: since != nil}), s.client.policy())
		return nil, false
	}
	own = &place{reading: true, limit: s.out.Limit() / 2, from: pos}
	s.own = own
	return own, false
}

// recover reads what an attached subscriber has missed, and lets it go on.
func (s *subscription) recover(ctx context.Context, own *place, since Position, welcome func(*beginning) *fanout.Frame) error {
	ch := s.ch
	before := s.heldFrom(own)
	page, err := ch.readShared(ctx, since.Offset)
	if err != nil {
		ch.env.storeFailed(err)
		ch.detach(s)
		return ErrStoreUnavailable.because(err)
	}
	top := Position(page.Top)
	b := ch.begin(since, &page)
	f := welcome(b)
	for !s.out.Offer(f) { // recoveries of several channels may be longer than the queue
		if !s.out.WaitRoom(ctx, f.Size()) {
			return nil // the connection has ended
		}
	}
	at := b.at
	if at == top || top.Epoch == "" {
		var done bool
		if at, done = s.join(own, at, top, before); done {
			return nil
		}
	}
	ch.env.tasks.Run(func() { s.catchUp(own, at, false) }) // if not, the connection is about to end
	return nil
}

// begin says what a subscriber that has everything up to since gets of a page that was
// read after it. If the page does not go on from there, it begins at the present.
func (ch *channel) begin(since Position, page *store.Page) *beginning {
	if page.Top.Epoch == "" { // there is no log, or no longer
		return &beginning{recovered: since == Position{}}
	}
	to, reason, _ := goOn(since, page)
	if reason != "" || trimmed(to, page) {
		return &beginning{at: Position(page.Top)}
	}
	b := &beginning{at: to, recovered: true, publications: make([]clientproto.Publication, 0, len(page.Entries))}
	for i := range page.Entries {
		e := &page.Entries[i]
		if e.Offset != b.at.Offset+1 {
			continue // read for another position
		}
		m := fromEntry(&ch.opts, page.Top.Epoch, e)
		b.publications = append(b.publications, publicationOf(liveOf(&m)))
		b.at = m.Position
	}
	return b
}
