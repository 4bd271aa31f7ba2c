package zmqgateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/channels-go/channels"
)

// Answers are the JSON that HTTP has for the same question.

type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type publishAnswer struct {
	Status    string     `json:"status"`
	Offset    uint64     `json:"offset,omitempty"`
	Epoch     string     `json:"epoch,omitempty"`
	Duplicate bool       `json:"duplicate,omitempty"`
	Error     *errorBody `json:"error,omitempty"`
}

type channelRow struct {
	Name   string  `json:"channel_name"`
	Cnt    int     `json:"cnt"`
	RPM    int     `json:"rpm"`
	Offset *uint64 `json:"offset,omitempty"`
	Epoch  *string `json:"epoch,omitempty"`
	First  *uint64 `json:"first,omitempty"`
}

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
	return marshal(publishAnswer{Status: "ok", Offset: res.Position.Offset, Epoch: res.Position.Epoch, Duplicate: res.Duplicate})
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
	answer := struct {
		Data []channelRow `json:"data"`
		Next string       `json:"next"`
	}{make([]channelRow, len(page.Channels)), page.Next}
	for i, c := range page.Channels {
		answer.Data[i] = channelRow{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	}
	return marshal(answer)
}

// channel answers "channel".
func (g *Gateway) channel(name string) []byte {
	c, err := g.hub.Channel(g.ctx, name)
	if err != nil {
		return refused(err)
	}
	row := channelRow{Name: c.Name, Cnt: c.Subscribers, RPM: c.Publishes}
	if c.Position != (channels.Position{}) {
		row.Offset, row.Epoch, row.First = &c.Position.Offset, &c.Position.Epoch, &c.First
	}
	return marshal(map[string]channelRow{"data": row})
}

// refused is an error of the hub as programs may see it.
func refused(err error) []byte {
	var e *channels.Error
	if !errors.As(err, &e) {
		e = channels.ErrInternal
	}
	return marshal(publishAnswer{Status: "fail", Error: &errorBody{e.Code, e.Message}})
}

// failed is an error of the gateway's own.
func failed(code string, err error) []byte {
	return marshal(publishAnswer{Status: "fail", Error: &errorBody{code, strings.TrimPrefix(err.Error(), "zmqgateway: ")}})
}
