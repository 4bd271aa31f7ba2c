package channels

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/fanout"
)

// several is what an event stream of several channels has besides what a client has.
type several struct {
	mu        sync.Mutex // guards positions until all is attached; then they are the writer's
	positions *positions
	live      []*subscription // that it has begun with
	refused   []refusal
	again     bool // a channel was refused for a reason that passes
}

// A refusal says why a stream does not have one of its channels.
type refusal struct {
	channel string
	err     *Error
}

// A wish is a channel or a pattern that a stream asks for.
type wish struct {
	name  string
	sub   *subscription
	ch    *channel // in use, until sub has it; nil for a pattern
	feed  *feed
	from  start
	until time.Time // when the right to it ends; zero: never
	err   error     // why it is refused
}

// letInSeveral asks the app whether the client may come and which of the channels it may
// have, and subscribes it to them. If it may have none, that is an error. As with letIn,
// the connection no longer counts against the limits after an error.
func (s *stream) letInSeveral(ctx context.Context, q eventsQuery) error {
	h, c := s.hub, &s.client
	ctx, done := c.enter(ctx)
	defer done()
	var wishes []*wish
	for _, name := range append(q.channels[:len(q.channels):len(q.channels)], q.patterns...) {
		wishes = append(wishes, s.wishFor(ctx, name, &q))
	}
	err := s.whyNone(wishes)
	if err == nil {
		err = c.connected(ctx)
	}
	if err != nil {
		for _, w := range wishes {
			if w.err == nil {
				w.release(h)
			}
		}
		err = c.turnAway(err)
		h.admission.dismiss(c.info.RemoteAddr)
		return err
	}
	// From here on OnDisconnect follows.
	s.attachAll(ctx, wishes)
	if err = s.whyNone(wishes); err == nil {
		err = s.several.begin(wishes)
	}
	if err != nil {
		c.leave()
		err = c.turnAway(err)
		c.disconnected(err)
	}
	return err
}

// wishFor asks the app for a channel or a pattern.
func (s *stream) wishFor(ctx context.Context, name string, q *eventsQuery) *wish {
	h, c := s.hub, &s.client
	w := &wish{name: name, from: start{since: q.cameFrom(name)}}
	if w.sub, w.err = c.subs.reserve(c, name, h.opts.MaxSubscriptions); w.err != nil {
		return w
	}
	if isPattern(name) {
		if w.until, w.err = c.mayCome(ctx, w.sub, ""); w.err != nil {
			return w
		}
		p, err := compilePattern(name)
		if err == nil {
			w.feed, err = h.useFeed(p)
		}
		w.err = err
		return w
	}
	if w.ch, w.until, w.err = c.ask(ctx, w.sub, ""); w.err != nil {
		return w
	}
	switch {
	case w.ch.opts.HistorySize > 0 && w.from.since == nil:
		w.from.last = q.last
	case w.ch.opts.HistorySize == 0 && q.lost:
		w.from.since = nil // nobody knows whether it has ever had a position
	}
	return w
}

// cameFrom returns where the client was in a channel, or nil.
func (q *eventsQuery) cameFrom(name string) *Position {
	if q.lost {
		return &Position{Epoch: "?"} // an epoch that no log has
	}
	return q.since[name]
}

// release undoes wishFor.
func (w *wish) release(h *Hub) {
	if w.feed != nil {
		h.leaveFeed(w.feed)
	} else {
		w.ch.release()
	}
}

// whyNone returns why the client is not let in: it was ended meanwhile, or each of its
// wishes is refused. Of their reasons it is one that passes, if there is one, so that the
// client comes again.
func (s *stream) whyNone(wishes []*wish) (err error) {
	if ended, cause := s.Ended(); ended {
		return cause
	}
	for _, w := range wishes {
		switch {
		case w.err == nil:
			return nil
		case err == nil, !visible(err, ErrInternal).passes():
			err = w.err
		}
	}
	return err
}

// attachAll subscribes the client to what it may have, several at a time: a client that
// comes back does not wait for the Store once for each of its channels. The goroutines
// end with the Store's answers, and attachAll waits for them.
func (s *stream) attachAll(ctx context.Context, wishes []*wish) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.hub.opts.StoreTimeout)
	defer cancel()
	var all sync.WaitGroup
	slots := make(chan struct{}, maxEntering)
	for _, w := range wishes {
		switch {
		case w.sub == nil:
		case w.err != nil:
			s.subs.end(w.sub)
		case w.feed != nil || !w.ch.asksFor(&w.from):
			s.attachOne(ctx, w)
		default:
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				s.attachOne(ctx, w)
			})
		}
	}
	all.Wait()
}

func (s *stream) attachOne(ctx context.Context, w *wish) {
	if w.feed != nil {
		w.feed.attach(w.sub, nil)
	} else if w.err = s.open(ctx, w); w.err != nil {
		w.ch.release()
		s.subs.end(w.sub)
		return
	}
	s.show(w.sub)
	if !s.subs.settle(w.sub) { // the app has ended it meanwhile
		s.quit(w.sub)
		w.err = ErrUnsubscribed
		return
	}
	if !w.until.IsZero() {
		s.endRightAt(w.sub, w.until)
	}
}

// open subscribes the client to a channel. The first messages are queued.
func (s *stream) open(ctx context.Context, w *wish) error {
	o, err := w.ch.open(ctx, w.sub, w.from)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = ErrStoreUnavailable.because(err)
		}
		return err
	}
	var at *Position
	if w.ch.opts.HistorySize > 0 {
		at = &o.from
	}
	begins := at
	if o.reason != "" { // if the client is cut before it has the reset, it gets it again
		begins = w.from.since
		s.Send(newResetFrame(w.ch.name, o.reason, at), fanout.Close)
	}
	if begins != nil {
		s.several.mu.Lock()
		s.several.positions.set(w.ch.name, *begins)
		s.several.mu.Unlock()
	}
	o.send(w.sub)
	w.sub.follow(&o)
	return nil
}

// begin notes with what the stream begins.
func (v *several) begin(wishes []*wish) error {
	for _, w := range wishes {
		if w.err == nil {
			v.live = append(v.live, w.sub)
			continue
		}
		e := visible(w.err, ErrInternal)
		v.refused = append(v.refused, refusal{w.name, e})
		if !e.passes() {
			continue
		}
		v.again = true
		if w.from.since != nil { // it goes on from there when it asks again
			v.positions.set(w.name, *w.from.since)
		}
	}
	if n := v.positions.room(); n > maxPositions {
		return ErrBadQuery.saying("the positions of %d channels may take %d bytes, and a Last-Event-ID has room for %d; open several streams", len(v.positions.channels), n, maxPositions)
	}
	return nil
}

// appendBeginning appends where the stream begins, and what was refused.
func (v *several) appendBeginning(b []byte, as fanout.Format) []byte {
	if v.positions.any() {
		b = append(v.positions.append(append(b, "id: "...)), "\n\n"...)
	}
	if len(v.refused) > 0 {
		b = append(b, newRefusalFrame(v.refused).Bytes(as)...)
	}
	return b
}

// newRefusalFrame names channels that a stream does not have, or no longer.
func newRefusalFrame(refused []refusal) *fanout.Frame {
	type one struct {
		Channel string `json:"channel"`
		Code    string `json:"code"`
		Msg     string `json:"msg"`
	}
	all := make([]one, len(refused))
	for i, r := range refused {
		all[i] = one{r.channel, r.err.Code, r.err.Message}
	}
	body, _ := json.Marshal(struct {
		Code     string `json:"code"`
		Msg      string `json:"msg"`
		Channels []one  `json:"channels"`
	}{all[0].Code, fmt.Sprintf("channels refused: %d; the others go on", len(all)), all}) // texts cannot fail
	return newAnswerFrame(headerError, body, nil)
}

// join is Outbox.Join with an id before each event that moves the stream on.
func (s *stream) join(buf *[]byte, frames []*fanout.Frame) (b []byte, last bool) {
	if s.several == nil {
		return s.Join(buf, frames)
	}
	b = (*buf)[:0]
	var one []byte
	for i := range frames {
		before := len(b)
		if s.several.moves(frames[i]) {
			b = append(s.several.positions.append(append(b, "id: "...)), '\n')
		}
		s.Sent.Bytes.Add(int64(len(b) - before))
		s.hub.fan.Written.Add(int64(len(b) - before))
		more, end := s.Join(&one, frames[i:i+1])
		b, last = append(b, more...), last || end
	}
	if *buf = b; cap(b) > 256<<10 {
		*buf = nil // a rare long one is not kept
	}
	return b, last
}

// moves notes where the stream is after a frame, and reports whether that is elsewhere.
func (v *several) moves(f *fanout.Frame) bool {
	switch m := f.Value.(type) {
	case *frame:
		return m.at() != nil && v.positions.set(m.channel.name, *m.at())
	case *notice:
		return m.at != nil && v.positions.set(m.channel, *m.at)
	}
	return false
}

// unsubscribed ends a subscription for the app, and reports whether it was there. It may
// be called concurrently.
func (v *several) unsubscribed(c *client, channel string) bool {
	one, found := c.subs.take(channel)
	if one != nil { // if it is still entering, attachOne sees it
		c.loses(one, ErrUnsubscribed)
	}
	return found
}

// endRightAt ends a subscription with the right to it.
func (s *stream) endRightAt(sub *subscription, until time.Time) {
	a := &s.subs
	a.mu.Lock()
	defer a.mu.Unlock()
	if sub.stage != live {
		return
	}
	sub.right = &right{timer: time.AfterFunc(time.Until(until), func() {
		if one := a.takeThis(sub); one != nil {
			s.loses(one, ErrExpired)
		}
	})}
}

// loses ends one of several subscriptions, which the caller has taken. The client is told,
// or ended if it has no other. It may be called concurrently.
func (c *client) loses(one *subscription, why *Error) {
	name := one.name()
	c.quit(one)
	if c.subs.count() == 0 {
		c.out.End(farewell(why, closeForbidden), why, false)
		return
	}
	c.answer(newRefusalFrame([]refusal{{name, why}}))
}
