package channels

import (
	"net/http"

	"github.com/channels-go/channels/internal/answer"
)

// serveList is GET /v1/channel?prefix=&limit=&cursor=.
func (h *Hub) serveList(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := queryOf(r, "prefix", "limit", "cursor")
	if err != nil {
		return err
	}
	if err := h.authorizeHTTP(r, ActionList, ""); err != nil {
		return err
	}
	limit, err := limitOf(q)
	if err != nil {
		return err
	}
	page, err := h.Channels(r.Context(), ChannelsQuery{Prefix: q.Get("prefix"), Limit: limit, Cursor: q.Get("cursor")})
	if err != nil {
		return err
	}
	list := answer.List{Data: make([]answer.Channel, len(page.Channels)), Next: page.Next}
	for i, c := range page.Channels {
		list.Data[i] = answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	}
	h.writeJSON(w, r, http.StatusOK, list)
	return nil
}

// serveOne is GET /v1/channel/{name}.
func (h *Hub) serveOne(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := queryOf(r); err != nil {
		return err
	}
	if err := CheckName(name); err != nil {
		return err
	}
	if err := h.authorizeHTTP(r, ActionList, name); err != nil {
		return err
	}
	c, err := h.Channel(r.Context(), name)
	if err != nil {
		return err
	}
	row := answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	if c.Position != (Position{}) {
		row.Offset, row.Epoch, row.First = &c.Position.Offset, &c.Position.Epoch, &c.First
	}
	h.writeJSON(w, r, http.StatusOK, answer.One{Data: row})
	return nil
}
