package channels

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// serveHistory is GET /v1/channel/{name}/history?limit=&since=&before=.
func (h *Hub) serveHistory(w http.ResponseWriter, r *http.Request, name string, q url.Values) error {
	limit, err := limitOf(q)
	if err != nil {
		return err
	}
	hq := HistoryQuery{Limit: limit}
	if s := q.Get("since"); s != "" {
		p, err := ParsePosition(s)
		if err != nil {
			return err
		}
		hq.Since = &p
	}
	if s := q.Get("before"); s != "" {
		if hq.Before, err = strconv.ParseUint(s, 10, 64); err != nil || hq.Before == 0 {
			return ErrBadQuery.saying("before is %.40q; it must be an offset, 1 or more", s)
		}
	}
	page, err := h.History(r.Context(), name, hq)
	if err != nil {
		return err
	}
	rows := make([]historyRow, len(page.Messages))
	size := 0
	for i, m := range page.Messages {
		size += len(m.Header) + len(m.Body) + 100
		rows[i] = historyRow{m.Header, m.Body, m.Position.Offset, m.Position.Epoch, m.Time.UTC()}
	}
	return h.writeLong(w, struct {
		Data   []historyRow `json:"data"`
		Offset uint64       `json:"offset"`
		Epoch  string       `json:"epoch"`
		First  uint64       `json:"first"`
		Missed bool         `json:"missed"`
	}{rows, page.Position.Offset, page.Position.Epoch, page.First, page.Missed}, size)
}

type historyRow struct {
	Header string          `json:"header"`
	Body   json.RawMessage `json:"body"`
	Offset uint64          `json:"offset"`
	Epoch  string          `json:"epoch"`
	Time   time.Time       `json:"time"`
}
