package admin

import (
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/channels-go/channels"
)

// channelsInfo is a page of the list of channels.
type channelsInfo struct {
	Channels []channelRow `json:"channels"`
	Offset   int64        `json:"offset"`
	Total    int          `json:"total"`  // that the search has found
	More     bool         `json:"more"`   // there are channels that were not looked at
	Age      int64        `json:"age_ms"` // of these numbers
	Own      bool         `json:"own"`    // they are only of the replica that answers
}

type channelRow struct {
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
	Publishes   int    `json:"publishes"` // in the last 60 s
}

// maxRows bounds a page of the list.
const maxRows = 200

// serveChannels is GET /api/channels?contains=&prefix=&sort=&offset=&limit=.
func (a *Admin) serveChannels(_ http.ResponseWriter, r *http.Request, _ operator) (any, error) {
	q, err := query(r, "contains", "prefix", "sort", "offset", "limit")
	if err != nil {
		return nil, err
	}
	by := q.Get("sort")
	if by == "" {
		by = "subscribers"
	}
	if !slices.Contains([]string{"name", "subscribers", "publishes"}, by) {
		return nil, badRequest("sort is %.60q; it must be name, subscribers or publishes", by)
	}
	for _, name := range []string{"contains", "prefix"} {
		if n := len(q.Get(name)); n > channels.MaxNameBytes {
			return nil, badRequest("%s has %d bytes; a channel's name has at most %d", name, n, channels.MaxNameBytes)
		}
	}
	offset, err := number(q, "offset", 0, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	limit, err := number(q, "limit", 50, maxRows)
	if err != nil {
		return nil, err
	}
	l, err := a.lists.get(q.Get("prefix"))
	if err != nil {
		return nil, err
	}
	order := l.find(search{q.Get("contains"), by})
	offset = min(offset, int64(len(order)))
	rows := order[offset:min(int64(len(order)), offset+limit)]
	info := channelsInfo{Channels: make([]channelRow, len(rows)), Offset: offset, Total: len(order), More: l.more, Age: time.Since(l.at).Milliseconds(), Own: a.alone(a.watch.look())}
	for i, k := range rows {
		info.Channels[i] = channelRow{l.all[k].Name, l.all[k].Subscribers, l.all[k].Publishes}
	}
	return info, nil
}
