package channels

import (
	"cmp"
	"context"

	"github.com/channels-go/channels/store"
)

// HistoryQuery selects a part of a channel's history: the newest Limit
// messages, those after Since (oldest first), or those right before Before.
type HistoryQuery struct {
	Since  *Position // only messages after it
	Before uint64    // only messages with a lower offset; 0: no bound
	Limit  int       // 0: 100; at most 1000. Fewer come if together they are longer than 4 MiB
}

// maxHistoryBytes bounds one answer of History.
const maxHistoryBytes = 4 << 20

// History is a part of a channel's history, in the order of offsets.
type History struct {
	Messages []Message
	Position Position // the channel's last one; Subscribe can go on from here
	First    uint64   // the offset of the oldest message kept
	Missed   bool     // Since is of another epoch, or messages after it are no longer kept
}

// History reads a channel's history. The errors are [ErrNoHistory],
// [ErrBadQuery], and those of Channel.
func (h *Hub) History(ctx context.Context, channel string, q HistoryQuery) (History, error) {
	if !h.calls.Enter() {
		return History{}, ErrClosed
	}
	defer h.calls.Leave()
	if q.Limit < 0 || q.Limit > maxListLimit {
		return History{}, ErrBadQuery.saying("limit is %d; it must be 1 to %d", q.Limit, maxListLimit)
	}
	q.Limit = cmp.Or(q.Limit, defaultListLimit)
	opts, err := h.optionsOf(channel)
	if err != nil {
		return History{}, err
	}
	if opts.HistorySize == 0 {
		return History{}, ErrNoHistory
	}
	sq := store.Query{Before: q.Before, Limit: q.Limit, Newest: q.Since == nil, MaxBytes: maxHistoryBytes}
	if q.Since != nil {
		sq.After = q.Since.Offset
	}
	page, err := h.readLog(ctx, channel, sq)
	if err == nil && q.Since != nil && page.Top.Epoch != q.Since.Epoch && sq.After > 0 {
		sq.After = 0 // an offset of another epoch says nothing about this one
		page, err = h.readLog(ctx, channel, sq)
	}
	if err != nil {
		return History{}, ErrStoreUnavailable.because(err)
	}
	r := History{Messages: make([]Message, len(page.Entries)), Position: Position(page.Top), First: page.First}
	for i := range page.Entries {
		r.Messages[i] = fromEntry(&opts, page.Top.Epoch, &page.Entries[i])
	}
	if s := q.Since; s != nil {
		elsewhere := s.Epoch != page.Top.Epoch || s.Offset > page.Top.Offset
		r.Missed = elsewhere && *s != (Position{}) || trimmed(*s, &page) || q.Before == 0 && hasHole(&page, sq.After)
	}
	return r, nil
}
