package channels

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/channels-go/channels/store"
)

// maxBatch is how many messages one POST /v1/publish may publish.
const maxBatch = 1000

type publishAnswer struct {
	Status string     `json:"status"`
	Ch     string     `json:"channel,omitempty"`
	Offset uint64     `json:"offset,omitempty"`
	Epoch  string     `json:"epoch,omitempty"`
	Again  bool       `json:"duplicate,omitempty"` // see Result.Duplicate
	Error  *errorBody `json:"error,omitempty"`
}

func answerOf(res Result, err error) publishAnswer {
	if err != nil {
		e := visible(err, ErrInternal)
		return publishAnswer{Status: "fail", Error: &errorBody{e.Code, e.Message}}
	}
	return publishAnswer{Status: "ok", Offset: res.Position.Offset, Epoch: res.Position.Epoch, Again: res.Duplicate}
}

// servePublish is POST /v1/channel/{name}/publish.
func (h *Hub) servePublish(w http.ResponseWriter, r *http.Request, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := queryOf(r); err != nil {
		return err
	}
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	if err := h.chargeHTTP(r); err != nil {
		return err
	}
	// Who may not publish is told so before anything is read.
	opts, err := h.optionsOf(name)
	if err != nil {
		return err
	}
	id, _ := IdentityFrom(r.Context())
	p := Publication{Channel: name, Identity: id, Network: true, allowed: true}
	if err := h.mayPublish(r.Context(), opts, &p); err != nil {
		return err
	}
	err = h.body(w, r, h.opts.MaxMessageBytes+envelopeBytes, func(b []byte) error {
		if err := checkObject(b); err != nil {
			return err
		}
		var in rawMessage
		if err := in.read(b); err != nil {
			return err
		}
		var err error
		if p.Message, err = in.message(h.opts.MaxMessageBytes); err != nil {
			return err
		}
		inBody, err := in.options()
		switch {
		case err == nil && inBody.Key != "" && key != "":
			err = ErrBadKey.saying("there is an Idempotency-Key in the header and a key in the body; give one")
		case inBody.Key != "":
			key = inBody.Key
		}
		return err
	})
	if err != nil {
		return err
	}
	res, err := h.publish(r.Context(), p, PublishOptions{Key: key})
	if err != nil {
		return err
	}
	h.sendJSON(w, http.StatusOK, appendPublished(nil, res))
	return nil
}

// appendPublished appends answerOf(res, nil), as JSON and with a line's end.
func appendPublished(b []byte, res Result) []byte {
	b = append(b, `{"status":"ok"`...)
	if p := res.Position; p.Offset > 0 {
		b = append(b, `,"offset":`...)
		b = strconv.AppendUint(b, p.Offset, 10)
		b = append(b, `,"epoch":`...)
		b = appendString(b, p.Epoch)
	}
	if res.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return append(b, "}\n"...)
}

func keyOf(r *http.Request) (string, error) {
	v := r.Header.Values("Idempotency-Key")
	if len(v) > 1 || len(v) == 1 && v[0] == "" {
		return "", ErrBadKey.saying("there has to be one Idempotency-Key of 1 to 200 characters, or none")
	}
	return r.Header.Get("Idempotency-Key"), nil
}

// servePublishMany is POST /v1/publish: {"channels":[…],"header","body","key"}
// or {"messages":[{"channel","header","body","key"},…]}.
func (h *Hub) servePublishMany(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := queryOf(r); err != nil {
		return err
	}
	if err := h.chargeHTTP(r); err != nil { // for the first of its messages
		return err
	}
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return ErrBadKey.saying(`the Idempotency-Key header is for one message; give each in "messages" its "key"`)
	}
	var b []byte
	bound := min(h.opts.batchBytes(), h.opts.MaxUnfinishedBytes/2)
	err := h.body(w, r, bound, func(read []byte) error {
		if err := checkObject(read); err != nil {
			return err
		}
		b = bytes.Clone(read)
		return nil
	})
	if err != nil {
		return err
	}
	batch, err := parseBatch(b, bound)
	if err != nil {
		return err
	}
	id, _ := IdentityFrom(r.Context())
	answer := struct {
		Status  string          `json:"status"`
		Results []publishAnswer `json:"results"`
	}{Status: "ok"}
	for i, one := range batch {
		var res Result
		var m Message
		var o PublishOptions
		if i > 0 {
			err = h.chargeHTTP(r)
		}
		if err == nil {
			m, o, err = one.parse(h.opts.MaxMessageBytes)
		}
		if err == nil {
			res, err = h.publish(r.Context(), Publication{Channel: one.name, Message: m, Identity: id, Network: true}, o)
		}
		if err != nil {
			answer.Status = "fail"
		}
		a := answerOf(res, err)
		if a.Ch = one.name; len(a.Ch) > MaxNameBytes { // it is none, and would come back six times as long
			a.Ch = clip(a.Ch)
		}
		answer.Results = append(answer.Results, a)
	}
	h.writeJSON(w, r, http.StatusOK, answer)
	return nil
}

// batched is one message of a batch.
type batched struct {
	name  string // of its channel
	raw   *rawMessage
	wrong error // what is wrong with it besides
}

func (b *batched) parse(max int) (m Message, o PublishOptions, err error) {
	if b.wrong != nil {
		return m, o, b.wrong
	}
	if m, err = b.raw.message(max); err == nil {
		o, err = b.raw.options()
	}
	return m, o, err
}

// parseBatch reads valid JSON, with which the messages share memory.
func parseBatch(b []byte, bound int) ([]batched, error) {
	var in rawMessage
	if err := in.read(b); err != nil {
		return nil, err
	}
	if tooMany(in.channels) || tooMany(in.messages) {
		return nil, errTooMany
	}
	var names []string
	var messages []json.RawMessage
	if in.channels != nil && json.Unmarshal(in.channels, &names) != nil {
		return nil, ErrBadMessage.saying(`"channels" has a JSON value of the wrong type; it has to be an array of names`)
	}
	if in.messages != nil && json.Unmarshal(in.messages, &messages) != nil {
		return nil, ErrBadMessage.saying(`"messages" has a JSON value of the wrong type; it has to be an array of objects`)
	}
	switch many := len(messages) > 0; {
	case many && (in.channels != nil || in.channel != nil || in.header != nil || in.body != nil || in.key != nil):
		return nil, ErrBadMessage.saying(`give either "messages", each with what belongs to it, or "channels" with "header", "body" and "key"`)
	case !many && len(names) == 0:
		return nil, ErrBadMessage.saying(`give "channels" with "header" and "body", or "messages", with 1 to %d entries`, maxBatch)
	case len(names) > maxBatch || len(messages) > maxBatch:
		return nil, errTooMany
	case len(names)*(len(in.header)+len(in.body)) > bound:
		// It counts once for each: that is what the Store may have to keep.
		return nil, ErrTooLarge.saying("one request publishes at most %d bytes; this message has %d for each of %d channels: publish it to fewer at once",
			bound, len(in.header)+len(in.body), len(names))
	}
	batch := make([]batched, 0, len(names)+len(messages))
	for _, name := range names {
		batch = append(batch, batched{name: name, raw: &in})
	}
	for _, b := range messages {
		one := batched{raw: new(rawMessage)}
		if b[0] != '{' {
			return nil, ErrBadMessage.saying(`"messages" has a JSON value of the wrong type; it has to be an array of objects`)
		}
		one.wrong = one.raw.read(b)
		if ch := one.raw.channel; ch != nil && json.Unmarshal(ch, &one.name) != nil {
			return nil, ErrBadMessage.saying(`"channel" has a JSON value of the wrong type; it has to be a name`)
		}
		batch = append(batch, one)
	}
	return batch, nil
}

var errTooMany = ErrTooLarge.saying("one request publishes at most %d messages; send the others in further ones", maxBatch)

// tooMany counts the entries of a list before they are parsed, since an empty
// one takes far more memory than the three bytes that it is sent with.
func tooMany(list json.RawMessage) bool {
	n := 0
	gjson.ParseBytes(list).ForEach(func(_, _ gjson.Result) bool { n++; return n <= maxBatch })
	return n > maxBatch
}

// ChannelInfo holds a channel's numbers over all replicas.
type ChannelInfo struct {
	Name        string
	Subscribers int
	Publishes   int // in the last 60 seconds
	// Position is the last one of the history, First the offset of the
	// oldest message kept. Hub.Channel fills them in, Hub.Channels does not.
	Position Position
	First    uint64
}

// ChannelsQuery selects a part of the list of channels.
type ChannelsQuery struct {
	Prefix string
	Limit  int    // 0: 100; at most 1000
	Cursor string // from the page before
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

// Channels lists the channels that have subscribers, or publishes in the last
// 60 seconds, over all replicas. The errors are [ErrBadQuery],
// [ErrStoreUnavailable] and [ErrClosed].
func (h *Hub) Channels(ctx context.Context, q ChannelsQuery) (ChannelsPage, error) {
	if !h.calls.enter() {
		return ChannelsPage{}, ErrClosed
	}
	defer h.calls.leave()
	switch {
	case q.Limit < 0 || q.Limit > maxListLimit:
		return ChannelsPage{}, ErrBadQuery.saying("limit is %d; it may be 1 to %d", q.Limit, maxListLimit)
	case q.Limit == 0:
		q.Limit = defaultListLimit
	}
	if q.Prefix != "" {
		if err := CheckName(q.Prefix); err != nil && q.Prefix != "." && q.Prefix != ".." {
			return ChannelsPage{}, ErrBadQuery.saying("the prefix %.210q cannot begin a channel's name", q.Prefix)
		}
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil || q.Cursor != "" && CheckName(string(after)) != nil {
		return ChannelsPage{}, ErrBadQuery.saying("the cursor %.300q is none that this list has given", q.Cursor)
	}
	ctx, cancel := h.storeContext(ctx) // for both calls
	defer cancel()
	if err := h.flush(ctx, false); err != nil {
		return ChannelsPage{}, err
	}
	counts, err := h.store.Channels(ctx, q.Prefix, string(after), q.Limit+1)
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

// Channel returns one channel's numbers; all zero where there is nothing. The
// errors are [ErrBadChannel], [ErrInternal] (see
// Publish), [ErrStoreUnavailable] and [ErrClosed].
func (h *Hub) Channel(ctx context.Context, name string) (ChannelInfo, error) {
	if !h.calls.enter() {
		return ChannelInfo{}, ErrClosed
	}
	defer h.calls.leave()
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

// HistoryQuery selects a part of a channel's history: the newest Limit
// messages, those after Since (oldest first), or those right before Before.
type HistoryQuery struct {
	Since  *Position // only messages after it
	Before uint64    // only messages with a lower offset; 0: no bound
	Limit  int       // 0: 100; at most 1000. Fewer come where they are longer than 4 MiB together
}

// maxHistoryBytes bounds one answer of History.
const maxHistoryBytes = 4 << 20

// History is a part of a channel's history, in the order of offsets.
type History struct {
	Messages []Message
	Position Position // the channel's last one: from here, Subscribe goes on
	First    uint64   // the offset of the oldest message kept
	Missed   bool     // Since is of another epoch, or messages after it are no longer kept
}

// History reads a channel's history. The errors are [ErrNoHistory],
// [ErrBadQuery], and those of Channel.
func (h *Hub) History(ctx context.Context, channel string, q HistoryQuery) (History, error) {
	if !h.calls.enter() {
		return History{}, ErrClosed
	}
	defer h.calls.leave()
	switch {
	case q.Limit < 0 || q.Limit > maxListLimit:
		return History{}, ErrBadQuery.saying("limit is %d; it may be 1 to %d", q.Limit, maxListLimit)
	case q.Limit == 0:
		q.Limit = defaultListLimit
	}
	opts, err := h.optionsOf(channel)
	if err != nil {
		return History{}, err
	}
	if opts.HistorySize == 0 {
		return History{}, ErrNoHistory
	}
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	sq := store.Query{Before: q.Before, Limit: q.Limit, Newest: q.Since == nil, MaxBytes: maxHistoryBytes}
	if q.Since != nil {
		sq.After = q.Since.Offset
	}
	page, err := h.readLog(ctx, channel, sq)
	if err == nil && q.Since != nil && page.Top.Epoch != q.Since.Epoch && sq.After > 0 {
		sq.After = 0 // an offset of another life of the log says nothing
		page, err = h.readLog(ctx, channel, sq)
	}
	if err != nil {
		return History{}, ErrStoreUnavailable.because(err)
	}
	r := History{Messages: make([]Message, len(page.Entries)), Position: Position(page.Top), First: page.First}
	for i := range page.Entries {
		r.Messages[i] = fromEntry(page.Top.Epoch, &page.Entries[i])
	}
	if s := q.Since; s != nil && *s != (Position{}) {
		r.Missed = s.Epoch != page.Top.Epoch || s.Offset > page.Top.Offset || page.First > s.Offset+1
	} else if s != nil {
		r.Missed = page.First > 1
	}
	if q.Since != nil && q.Before == 0 {
		r.Missed = r.Missed || hasHole(&page, sq.After)
	}
	return r, nil
}

type channelRow struct {
	Name   string  `json:"channel_name"`
	Cnt    int     `json:"cnt"`
	RPM    int     `json:"rpm"`
	Offset *uint64 `json:"offset,omitempty"`
	Epoch  *string `json:"epoch,omitempty"`
	First  *uint64 `json:"first,omitempty"`
}

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

type historyRow struct {
	Header string          `json:"header"`
	Body   json.RawMessage `json:"body"`
	Offset uint64          `json:"offset"`
	Epoch  string          `json:"epoch"`
	Time   time.Time       `json:"time"`
}

// serveHistory is GET /v1/channel/{name}/history?limit=&since=&before=.
func (h *Hub) serveHistory(w http.ResponseWriter, r *http.Request, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	q, err := queryOf(r, "limit", "since", "before")
	if err != nil {
		return err
	}
	if err := h.authorizeHTTP(r, ActionHistory, name); err != nil {
		return err
	}
	var hq HistoryQuery
	if hq.Limit, err = limitOf(q); err != nil {
		return err
	}
	if s := q.Get("since"); s != "" {
		p, err := ParsePosition(s)
		if err != nil {
			return err
		}
		hq.Since = &p
	}
	if s := q.Get("before"); s != "" {
		if hq.Before, err = strconv.ParseUint(s, 10, 64); err != nil || hq.Before == 0 {
			return ErrBadQuery.saying("before is %.40q; it has to be an offset, 1 or more", s)
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
	h.writeLong(w, r, http.StatusOK, struct {
		Data   []historyRow `json:"data"`
		Offset uint64       `json:"offset"`
		Epoch  string       `json:"epoch"`
		First  uint64       `json:"first"`
		Missed bool         `json:"missed"`
	}{rows, page.Position.Offset, page.Position.Epoch, page.First, page.Missed}, size)
	return nil
}

// servePresence is GET /v1/channel/{name}/presence?limit=.
func (h *Hub) servePresence(w http.ResponseWriter, r *http.Request, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	q, err := queryOf(r, "limit")
	if err != nil {
		return err
	}
	if err := h.authorizeHTTP(r, ActionPresence, name); err != nil {
		return err
	}
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
	h.writeLong(w, r, http.StatusOK, struct {
		Data []Member `json:"data"`
		Cnt  int      `json:"cnt"`
	}{ms.Members, ms.Total}, size)
	return nil
}

// queryOf parses a query, in which each of the keys may stand once. One that is
// none of them is an error, since it may be one of them misspelt, or belong to
// the body. Names that begin with "_" are left to others: some clients and caches
// add one. Only the probes, /healthz and /readyz, take any query: whatever a load
// balancer adds, it must not find this replica bad for it.
func queryOf(r *http.Request, keys ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, ErrBadQuery.saying("the query is not encoded correctly: %v", err)
	}
	for k, v := range q {
		switch {
		case strings.HasPrefix(k, "_"):
		case !slices.Contains(keys, k):
			return nil, ErrBadQuery.saying(`the query has %.80q; it may have %s here, and names that begin with "_", which nobody reads`, k, cmp.Or(strings.Join(keys, ", "), "nothing"))
		case len(v) > 1:
			return nil, ErrBadQuery.saying("%s stands in the query %d times; it may stand there once", k, len(v))
		}
	}
	return q, nil
}

func limitOf(q url.Values) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, ErrBadQuery.saying("limit is %.40q; it has to be a whole number, 1 or more", s)
	}
	return n, nil
}
