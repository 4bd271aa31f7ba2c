package channels

import (
	"cmp"
	"context"
	"encoding/base64"
	"iter"
	"slices"

	"github.com/channels-go/channels/store"
)

// ChannelInfo holds a channel's numbers over all replicas.
type ChannelInfo struct {
	Name        string
	Subscribers int
	// Publishes is how many messages were published in the last 60 seconds. Where more
	// than 1,000 channels of a replica are busy, it may fall 5 s late, and rise 5 s late
	// in the lists of other replicas.
	Publishes int
	// Position is the last position of the history, First the offset of the
	// oldest message kept. Hub.Channel fills them in, Hub.Channels does not.
	Position Position
	First    uint64
}

// ChannelsQuery selects a part of the list of channels.
type ChannelsQuery struct {
	Prefix string
	Limit  int    // 0: 100; at most 1000
	Cursor string // Next of the page before
}

// ChannelsPage is a part of the list, sorted by name.
type ChannelsPage struct {
	Channels []ChannelInfo
	Next     string // the cursor of the next page; empty after the last one
}

const (
	defaultListLimit = 100
	maxListLimit     = 1000
)

// Channels lists the channels that have subscribers now, or had publishes in the
// last 60 seconds, on any replica. The errors are [ErrBadQuery],
// [ErrStoreUnavailable] and [ErrClosed].
func (h *Hub) Channels(ctx context.Context, q ChannelsQuery) (ChannelsPage, error) {
	return h.list(ctx, q, h.store.Channels)
}

// AllChannels yields what [Hub.Channels] lists, page by page: the channels whose names
// begin with prefix, which may be empty, sorted by name. After an error it ends.
func (h *Hub) AllChannels(ctx context.Context, prefix string) iter.Seq2[ChannelInfo, error] {
	return func(yield func(ChannelInfo, error) bool) {
		for q := (ChannelsQuery{Prefix: prefix, Limit: maxListLimit}); ; {
			page, err := h.Channels(ctx, q)
			if err != nil {
				yield(ChannelInfo{}, err)
				return
			}
			for _, c := range page.Channels {
				if !yield(c, nil) {
					return
				}
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				return
			}
		}
	}
}

// listForClients is Channels without users' channels, whose names say who the users
// are.
func (h *Hub) listForClients(ctx context.Context, q ChannelsQuery) (ChannelsPage, error) {
	return h.list(ctx, q, func(ctx context.Context, prefix, after string, limit int) ([]store.Count, error) {
		if isUserChannel(prefix) {
			return nil, nil
		}
		counts, err := h.store.Channels(ctx, prefix, after, limit)
		users := slices.IndexFunc(counts, func(c store.Count) bool { return isUserChannel(c.Channel) })
		if err != nil || users < 0 {
			return counts, err
		}
		others, err := h.store.Channels(ctx, prefix, afterUsers, limit-users)
		return append(counts[:users], others...), err
	})
}

// list is Channels with what read reads.
func (h *Hub) list(ctx context.Context, q ChannelsQuery, read func(ctx context.Context, prefix, after string, limit int) ([]store.Count, error)) (ChannelsPage, error) {
	if !h.calls.Enter() {
		return ChannelsPage{}, ErrClosed
	}
	defer h.calls.Leave()
	if q.Limit < 0 || q.Limit > maxListLimit {
		return ChannelsPage{}, ErrBadQuery.saying("limit is %d; it must be 1 to %d", q.Limit, maxListLimit)
	}
	q.Limit = cmp.Or(q.Limit, defaultListLimit)
	if q.Prefix != "" {
		if err := CheckName(q.Prefix); err != nil && q.Prefix != "." && q.Prefix != ".." {
			return ChannelsPage{}, ErrBadQuery.saying("the prefix %.210q cannot begin a channel's name", q.Prefix)
		}
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil || q.Cursor != "" && CheckName(string(after)) != nil {
		return ChannelsPage{}, ErrBadQuery.saying("the cursor %.300q does not come from this list; use the next of the page before", q.Cursor)
	}
	ctx, cancel := h.storeContext(ctx) // for both calls
	defer cancel()
	if err := h.flush(ctx, false); err != nil {
		return ChannelsPage{}, err
	}
	counts, err := read(ctx, q.Prefix, string(after), q.Limit+1)
	if err != nil {
		return ChannelsPage{}, ErrStoreUnavailable.because(err)
	}
	var page ChannelsPage
	if len(counts) > q.Limit {
		counts = counts[:q.Limit]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(counts[q.Limit-1].Channel))
	}
	page.Channels = make([]ChannelInfo, len(counts))
	for i, c := range counts {
		page.Channels[i] = ChannelInfo{Name: c.Channel, Subscribers: c.Subscribers, Publishes: c.Publishes}
	}
	return page, nil
}

// Channel returns one channel's numbers, which are zero for a channel that
// nobody uses. The errors are [ErrBadChannel], [ErrInternal] (see
// [Hub.Publish]), [ErrStoreUnavailable] and [ErrClosed].
func (h *Hub) Channel(ctx context.Context, name string) (ChannelInfo, error) {
	if !h.calls.Enter() {
		return ChannelInfo{}, ErrClosed
	}
	defer h.calls.Leave()
	opts, err := h.optionsOf(name)
	if err != nil {
		return ChannelInfo{}, err
	}
	ctx, cancel := h.storeContext(ctx) // for all calls
	defer cancel()
	if err := h.flush(ctx, false); err != nil {
		return ChannelInfo{}, err
	}
	c, err := h.store.Channel(ctx, name)
	if err != nil {
		return ChannelInfo{}, ErrStoreUnavailable.because(err)
	}
	info := ChannelInfo{Name: name, Subscribers: c.Subscribers, Publishes: c.Publishes}
	if opts.HistorySize > 0 {
		page, err := h.readLog(ctx, name, store.Query{})
		if err != nil {
			return ChannelInfo{}, ErrStoreUnavailable.because(err)
		}
		info.Position, info.First = Position(page.Top), page.First
	}
	return info, nil
}
