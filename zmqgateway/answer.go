package zmqgateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/answer"
)

// Answers are the JSON that HTTP has for the same question.

// marshal encodes what consists of texts and numbers, which cannot fail.
func marshal(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// published answers "publish".
func published(res channels.Result, err error) []byte {
	if err != nil {
		return refused(err)
	}
	return marshal(answer.Published{Status: "ok", Offset: res.Position.Offset, Epoch: res.Position.Epoch, Duplicate: res.Duplicate})
}

// list answers "list". Arguments that were left out are empty.
func (g *Gateway) list(prefix, limit, cursor string) []byte {
	q := channels.ChannelsQuery{Prefix: prefix, Cursor: cursor}
	var bad error
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			// The hub refuses -1, unless it refuses the whole request first.
			n, bad = -1, &channels.Error{Code: channels.ErrBadQuery.Code, Message: fmt.Sprintf("limit is %.40q; it must be a whole number, 1 or more", limit)}
		}
		q.Limit = n
	}
	page, err := g.hub.Channels(g.ctx, q)
	if bad != nil && errors.Is(err, channels.ErrBadQuery) {
		err = bad
	}
	if err != nil {
		return refused(err)
	}
	all := answer.List{Data: make([]answer.Channel, len(page.Channels)), Next: page.Next}
	for i, c := range page.Channels {
		all.Data[i] = answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	}
	return marshal(all)
}

// channel answers "channel".
func (g *Gateway) channel(name string) []byte {
	c, err := g.hub.Channel(g.ctx, name)
	if err != nil {
		return refused(err)
	}
	row := answer.Channel{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	if c.Position != (channels.Position{}) {
		row.Offset, row.Epoch, row.First = &c.Position.Offset, &c.Position.Epoch, &c.First
	}
	return marshal(answer.One{Data: row})
}

// refused is an error of the hub as programs may see it.
func refused(err error) []byte {
	var e *channels.Error
	if !errors.As(err, &e) {
		e = channels.ErrInternal
	}
	return marshal(answer.Refused(e.Code, e.Message))
}

// failed is an error of the gateway's own.
func failed(code string, err error) []byte {
	return marshal(answer.Refused(code, strings.TrimPrefix(err.Error(), "zmqgateway: ")))
}
