package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/store"
)

// Range implements [store.Log]. Concurrent calls for the same part of a log
// share one read. If they come in a constant stream, a call may wait up to 200
// ms for the next read.
func (s *Store) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	if err := s.enter(ctx); err != nil {
		return store.Page{}, err
	}
	page, err := s.reads.share(s, ctx, part{channel, q})
	if err != nil {
		return store.Page{}, s.explain(ctx, fmt.Sprintf("read %q", channel), err)
	}
	return page.open(), nil
}

// page is a store.Page whose entries are immutable, so that many callers can
// share it.
type page struct {
	store.Page
	entries []entry
}

type entry struct {
	offset             uint64
	time               int64 // in milliseconds since 1970
	header, body, info string
}

func (p *page) open() store.Page {
	out := p.Page
	out.Earlier = slices.Clone(p.Earlier)
	if len(p.entries) > 0 {
		out.Entries = make([]store.Entry, len(p.entries))
	}
	for i, e := range p.entries {
		out.Entries[i] = store.Entry{Offset: e.offset, Time: time.UnixMilli(e.time).UTC(), Header: e.header, Body: json.RawMessage(e.body)}
		if e.info != "" {
			out.Entries[i].Info = []byte(e.info)
		}
	}
	return out
}

const (
	// maxOffset is the largest offset that a script can count with. No log ever
	// reaches it.
	maxOffset = 1<<53 - 1
	// rereads is the maximum number of times that a read begins anew because
	// the log's beginning was trimmed meanwhile.
	rereads = 5
)

// read reads a part of a log, in one step unless it is long.
func (s *Store) read(ctx context.Context, p part) (*page, error) {
	var found *page
	for range rereads {
		var whole bool
		var err error
		found, whole, err = s.readSteps(ctx, p)
		if err != nil || whole {
			return found, err
		}
	}
	return found, nil // fewer entries than were asked for
}

// readSteps returns false if the log changed so much between two steps that the
// page has less than it should.
func (s *Store) readSteps(ctx context.Context, p part) (*page, bool, error) {
	q := p.query
	left := part{p.channel, q}
	if q.Before == 0 {
		left.query.Before = maxOffset
	}
	left.query.Before = min(left.query.Before, maxOffset)
	left.query.After = min(q.After, maxOffset)
	left.query.Limit = max(q.Limit, 0)
	if q.MaxBytes <= 0 {
		left.query.MaxBytes = math.MaxInt64
	}
	all := &page{}
	for step := 0; ; step++ {
		got, more, err := s.readStep(ctx, left, step == 0)
		if err != nil {
			return nil, false, err
		}
		switch {
		case step == 0:
			all.Page = got.Page
		case got.Top.Epoch != all.Top.Epoch, len(got.entries) == 0 && more:
			return all, false, nil
		case !q.Newest && got.First > left.query.After+1, q.Newest && got.First > all.First && got.First >= left.query.Before:
			return all, false, nil // trimmed between the steps
		case q.Newest:
			all.First = max(all.First, got.First) // all that was read is after it
		}
		all.entries = append(all.entries, got.entries...)
		if !more {
			break
		}
		for _, e := range got.entries {
			left.query.Limit--
			left.query.MaxBytes -= len(e.header) + len(e.body) + len(e.info)
		}
		last := all.entries[len(all.entries)-1].offset
		if q.Newest {
			left.query.Before = last
		} else {
			left.query.After = last
			left.query.Before = min(left.query.Before, all.Top.Offset+1)
		}
	}
	if q.Newest {
		slices.Reverse(all.entries)
	}
	return all, true, nil
}

// readStep runs the script once. It returns true if there is more to read.
func (s *Store) readStep(ctx context.Context, p part, first bool) (*page, bool, error) {
	q := p.query
	c := newCall(rangeScript, []string{s.keys.log(p.channel), s.keys.top(p.channel)},
		q.After, q.Before, q.Limit, q.MaxBytes, flag(q.Newest), flag(first))
	if err := s.askLog(ctx, p.channel, c); err != nil {
		return nil, false, err
	}
	reply, err := c.cmd.Slice()
	switch {
	case errors.Is(err, redis.Nil), err == nil && len(reply) == 0:
		return &page{}, false, nil
	case err != nil, len(reply) < 5:
		return nil, false, unexpected("read", c.cmd.Val())
	}
	epoch, _ := reply[0].(string)
	top, _ := reply[1].(int64)
	from, _ := reply[2].(int64)
	more, _ := reply[3].(int64)
	earlier, _ := reply[4].(string)
	got := &page{Page: store.Page{Top: store.Position{Epoch: epoch, Offset: uint64(top)}, First: uint64(from), Earlier: parseEarlier(earlier)}}
	for _, item := range reply[5:] {
		e, ok := parseEntry(item)
		if !ok {
			return nil, false, unexpected("read", item)
		}
		got.entries = append(got.entries, e)
	}
	return got, more == 1, nil
}

// parseEarlier parses "epoch:offset,epoch:offset". "-" means none.
func parseEarlier(text string) []store.Position {
	var earlier []store.Position
	for item := range strings.SplitSeq(text, ",") {
		if epoch, offset, ok := strings.Cut(item, ":"); ok {
			n, _ := strconv.ParseUint(offset, 10, 64)
			earlier = append(earlier, store.Position{Epoch: epoch, Offset: n})
		}
	}
	return earlier
}

// parseEntry parses an entry as the script returns it: the id,
// "offset-milliseconds", and the fields "header" and "body", with the info behind
// them if there is one.
func parseEntry(item any) (entry, bool) {
	pair, _ := item.([]any)
	if len(pair) != 2 {
		return entry{}, false
	}
	id, _ := pair[0].(string)
	fields, _ := pair[1].([]any)
	if len(fields) < 4 || len(fields) > 5 {
		return entry{}, false
	}
	offset, ms, _ := strings.Cut(id, "-")
	var e entry
	var errOffset, errTime error
	e.offset, errOffset = strconv.ParseUint(offset, 10, 64)
	e.time, errTime = strconv.ParseInt(ms, 10, 64)
	header, ok1 := fields[1].(string)
	body, ok2 := fields[3].(string)
	e.header, e.body = header, body
	ok3 := true
	if len(fields) == 5 {
		e.info, ok3 = fields[4].(string)
	}
	return e, errOffset == nil && errTime == nil && ok1 && ok2 && ok3
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
