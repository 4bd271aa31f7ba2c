package channels

import (
	"context"
	"net/http"
	"net/url"
)

// serveList is GET /v1/channel?prefix=&limit=&cursor=.
func (h *Hub) serveList(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := queryOf(r, "prefix", "limit", "cursor")
	if err != nil {
		return err
	}
	id, _ := IdentityFrom(r.Context())
	list, err := h.listFor(r.Context(), id, q)
	if err != nil {
		return err
	}
	h.writeJSON(w, r, http.StatusOK, list)
	return nil
}

type channelList struct {
	Data []channelRow `json:"data"`
	Next string       `json:"next"`
}

type channelRow struct {
	Name   string  `json:"channel_name"`
	Cnt    int     `json:"cnt"`
	RPM    int     `json:"rpm"`
	Offset *uint64 `json:"offset,omitempty"`
	Epoch  *string `json:"epoch,omitempty"`
	First  *uint64 `json:"first,omitempty"`
}

// listFor is the list as somebody from the network gets it.
func (h *Hub) listFor(ctx context.Context, id Identity, q url.Values) (channelList, error) {
	if err := h.authorize(ctx, Request{Action: ActionList, Identity: id}); err != nil {
		return channelList{}, err
	}
	limit, err := limitOf(q)
	if err != nil {
		return channelList{}, err
	}
	page, err := h.Channels(ctx, ChannelsQuery{Prefix: q.Get("prefix"), Limit: limit, Cursor: q.Get("cursor")})
	if err != nil {
		return channelList{}, err
	}
	rows := make([]channelRow, len(page.Channels))
	for i, c := range page.Channels {
		rows[i] = channelRow{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	}
	return channelList{rows, page.Next}, nil
}

// serveOne is GET /v1/channel/{name}.
func (h *Hub) serveOne(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := queryOf(r); err != nil {
		return err
	}
	id, _ := IdentityFrom(r.Context())
	row, err := h.rowFor(r.Context(), id, name)
	if err != nil {
		return err
	}
	h.writeJSON(w, r, http.StatusOK, row)
	return nil
}

// rowFor is one channel's numbers as somebody from the network gets them.
func (h *Hub) rowFor(ctx context.Context, id Identity, name string) (map[string]channelRow, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := h.authorize(ctx, Request{Action: ActionList, Channel: name, Identity: id}); err != nil {
		return nil, err
	}
	c, err := h.Channel(ctx, name)
	if err != nil {
		return nil, err
	}
	row := channelRow{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	if c.Position != (Position{}) {
		row.Offset, row.Epoch, row.First = &c.Position.Offset, &c.Position.Epoch, &c.First
	}
	return map[string]channelRow{"data": row}, nil
}
