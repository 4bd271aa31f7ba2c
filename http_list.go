package channels

import (
	"net/http"
	"net/url"

	"github.com/channels-go/channels/internal/answer"
)

// serveList is GET /v1/channel?prefix=&limit=&cursor=.
func (h *Hub) serveList(w http.ResponseWriter, r *http.Request, _ string, q url.Values) error {
	limit, err := limitOf(q)
	if err != nil {
		return err
	}
	page, err := h.listForClients(r.Context(), ChannelsQuery{Prefix: q.Get("prefix"), Limit: limit, Cursor: q.Get("cursor")})
	if err != nil {
		return err
	}
	list := answer.List{Data: make([]answer.Channel, len(page.Channels)), Next: page.Next}
	for i, c := range page.Channels {
		list.Data[i] = answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	}
	return h.writeJSON(w, list)
}

// serveOne is GET /v1/channel/{name}.
func (h *Hub) serveOne(w http.ResponseWriter, r *http.Request, name string, _ url.Values) error {
	c, err := h.Channel(r.Context(), name)
	if err != nil {
		return err
	}
	row := answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	if c.Position != (Position{}) {
		row.Offset, row.Epoch, row.First = &c.Position.Offset, &c.Position.Epoch, &c.First
	}
	return h.writeJSON(w, answer.One{Data: row})
}
