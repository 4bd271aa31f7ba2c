package channels

import (
	"net/http"
	"net/url"
)

// servePresence is GET /v1/channel/{name}/presence?limit=.
func (h *Hub) servePresence(w http.ResponseWriter, r *http.Request, name string, q url.Values) error {
	limit, err := limitOf(q)
	if err != nil {
		return err
	}
	ms, err := h.Presence(r.Context(), name, limit)
	if err != nil {
		return err
	}
	size := 0
	for _, m := range ms.Members {
		size += len(m.ID) + len(m.User) + len(m.Info) + 30
	}
	return h.writeLong(w, struct {
		Data []Member `json:"data"`
		Cnt  int      `json:"cnt"`
	}{ms.Members, ms.Total}, size)
}
