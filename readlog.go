package channels

import (
	"context"
	"fmt"

	"github.com/channels-go/channels/store"
)

// readLog is one Range of the Store, which all of the hub reads with. The Store
// may be one that other programs write to: what cannot be a message is left out,
// as if it had been removed, before it breaks a frame that a client reads.
func (h *Hub) readLog(ctx context.Context, channel string, q store.Query) (page store.Page, err error) {
	err = h.guard("the store", func() (err error) {
		page, err = h.store.Range(ctx, channel, q)
		return err
	})
	if err == nil {
		err = h.checkTop(channel, page.Top)
	}
	if _, own := h.store.(*store.Memory); own || err != nil { // it has what the hub has checked
		return page, err
	}
	good := page.Entries[:0]
	for _, e := range page.Entries {
		if err := checkEntry(&e); err != nil {
			h.warnEntry(channel, e.Offset, err)
			continue
		}
		good = append(good, e)
	}
	page.Entries = good
	return page, nil
}

// checkTop refuses an epoch that could not stand in an event's id.
func (h *Hub) checkTop(channel string, top store.Position) error {
	if !isEpoch(top.Epoch) {
		return fmt.Errorf("the store has the epoch %.80q for %q, which is none", top.Epoch, channel)
	}
	return nil
}

// checkEntry returns what is wrong with a message that a Store has.
func checkEntry(e *store.Entry) error {
	if err := checkHeader(e.Header); err != nil {
		return err
	}
	body, err := checkBody(e.Body, len(e.Body))
	e.Body = body
	return err
}

// endAtHole has a page that was read behind an offset end before the first message
// that the Store should have and has not, as somebody has removed it. Where that
// is the first one, the log begins behind it: nobody is to wait for it.
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

// hasHole returns whether a page that was read behind an offset lacks a message.
func hasHole(page *store.Page, after uint64) bool {
	end := store.Page{Entries: page.Entries, Top: page.Top, First: page.First}
	endAtHole(&end, after)
	return len(end.Entries) < len(page.Entries) || end.First > page.First
}

// storeContext bounds a call of the Store.
func (h *Hub) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.opts.StoreTimeout)
}
