package channels

import (
	"context"
	"fmt"

	"github.com/channels-go/channels/store"
)

// readLog calls the Store's Range, within Options.StoreTimeout. All reads of the hub
// go through it, since other programs may write to the Store: an entry that cannot be
// a message is left out, as if it had been removed, before it can break a client's
// frame.
func (h *Hub) readLog(ctx context.Context, channel string, q store.Query) (page store.Page, err error) {
	err = h.askLog(ctx, func(ctx context.Context) (err error) {
		page, err = h.store.Range(ctx, channel, q)
		return err
	})
	if err == nil {
		err = h.checkTop(channel, page.Top)
	}
	if h.store.memory || err != nil { // its entries were checked when they were published
		return page, err
	}
	good := page.Entries[:0]
	for _, e := range page.Entries {
		if err := checkEntry(&e); err != nil {
			h.warn.badEntry(channel, e.Offset, err)
			continue
		}
		good = append(good, e)
	}
	page.Entries = good
	return page, nil
}

// tops reads the last positions of channels, with one call of the Store.
func (h *Hub) tops(ctx context.Context, names []string) (tops []store.Position, err error) {
	err = h.askLog(ctx, func(ctx context.Context) error {
		if tops, err = h.store.Tops(ctx, names); err == nil && len(tops) != len(names) {
			err = fmt.Errorf("the store gave %d tops for %d channels", len(tops), len(names))
		}
		for i := 0; i < len(tops) && err == nil; i++ {
			err = h.checkTop(names[i], tops[i])
		}
		return err
	})
	return tops, err
}

// begin reads the last position of a channel, whose log begins if it is not there.
func (h *Hub) begin(ctx context.Context, name string) (at store.Position, err error) {
	err = h.askLog(ctx, func(ctx context.Context) error {
		at, err = h.store.Begin(ctx, name)
		switch {
		case err != nil:
			return err
		case at.Epoch == "":
			return fmt.Errorf("the store began the log of %q without an epoch", name)
		}
		return h.checkTop(name, at)
	})
	return at, err
}

// askLog calls the Store, within Options.StoreTimeout.
func (h *Hub) askLog(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	return h.guard("the store", func() error { return ask(ctx) })
}

// checkTop refuses an epoch that cannot be part of an event's id.
func (h *Hub) checkTop(channel string, top store.Position) error {
	if !isEpoch(top.Epoch) {
		return fmt.Errorf("the store gave %.80q as the epoch of channel %q; that cannot be an epoch", top.Epoch, channel)
	}
	return nil
}

// checkEntry says what is wrong with an entry of a Store, as a message.
func checkEntry(e *store.Entry) error {
	if err := checkHeader(e.Header); err != nil {
		return err
	}
	body, err := checkBody(e.Body, len(e.Body))
	e.Body = body
	return err
}

// endAtHole shortens a page that was read after an offset, so that it ends before
// the first message that is missing from the Store because somebody has removed
// it. If that is the first message of the page, the log begins after it: nobody
// waits for a message that cannot come.
func endAtHole(page *store.Page, after uint64) {
	if after >= page.Top.Offset {
		return
	}
	want := max(after+1, page.First)
	if len(page.Entries) > 0 && page.Entries[0].Offset > want {
		want = page.Entries[0].Offset
		page.First = want
	}
	for i := range page.Entries {
		if page.Entries[i].Offset != want {
			page.Entries = page.Entries[:i]
			return
		}
		want++
	}
	if len(page.Entries) == 0 && want <= page.Top.Offset {
		page.First = page.Top.Offset + 1
	}
}

// hasHole reports whether a message is missing from a page that was read after an
// offset.
func hasHole(page *store.Page, after uint64) bool {
	end := store.Page{Entries: page.Entries, Top: page.Top, First: page.First}
	endAtHole(&end, after)
	return len(end.Entries) < len(page.Entries) || end.First > page.First
}

// read reads the next part of the channel's history.
func (ch *channel) read(ctx context.Context, after uint64) (page store.Page, err error) {
	page, err = ch.env.readLog(ctx, ch.name, store.Query{After: after, Limit: rangeLimit, MaxBytes: ch.env.queueBytes / 4})
	endAtHole(&page, after)
	return page, err
}

// readNewest is readShared for the newest n messages. They may have holes.
func (ch *channel) readNewest(ctx context.Context, n int) (store.Page, error) {
	return ch.share(ctx, part{newest: n})
}

// A part of a channel's history is what comes after an offset, or the newest messages.
type part struct {
	after  uint64
	newest int // 0: those after the offset
}

// A sharedRead is one read of a channel's history for all that ask for the same part of
// it before it begins. The first of them reads; the others wait for done.
type sharedRead struct {
	part
	begun bool // guarded by channel.mu, as is next
	next  *sharedRead

	done chan struct{}
	page store.Page // these two are valid when done is closed, and do not change then
	err  error
}

// readShared is read for many subscribers that come back at the same time. Its answer
// is never older than the question: who comes while the Store is being asked shares
// the next read, and not this one.
func (ch *channel) readShared(ctx context.Context, after uint64) (store.Page, error) {
	return ch.share(ctx, part{after: after})
}

func (ch *channel) share(ctx context.Context, of part) (store.Page, error) {
	ch.mu.Lock()
	var before *sharedRead // the same read, which has begun
	for r := ch.reads; r != nil; r = r.next {
		switch {
		case r.part != of:
		case r.begun:
			before = r
		default:
			ch.mu.Unlock()
			select {
			case <-r.done:
				ch.env.turns.Take() // it wakes many at once
				return r.page, r.err
			case <-ctx.Done():
				return store.Page{}, ctx.Err()
			}
		}
	}
	r := &sharedRead{part: of, begun: before == nil, next: ch.reads, done: make(chan struct{})}
	ch.reads = r
	ch.mu.Unlock()
	if before != nil {
		<-before.done
		ch.mu.Lock()
		r.begun = true
		ch.mu.Unlock()
	}
	r.page, r.err = ch.readPart(ch.env.ctx, of) // for all of them, so not within one's context
	ch.mu.Lock()
	for p := &ch.reads; *p != nil; p = &(*p).next {
		if *p == r {
			*p = r.next
			break
		}
	}
	ch.mu.Unlock()
	close(r.done)
	return r.page, r.err
}

func (ch *channel) readPart(ctx context.Context, of part) (store.Page, error) {
	if of.newest == 0 {
		return ch.read(ctx, of.after)
	}
	return ch.env.readLog(ctx, ch.name, store.Query{Limit: of.newest, Newest: true, MaxBytes: ch.env.queueBytes / 4})
}

// encode makes the frame of an entry that was read.
func (ch *channel) encode(epoch string, e *store.Entry) *frame {
	return newMessageFrame(ch, fromEntry(&ch.opts, epoch, e))
}
