package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels/store"
)

const (
	// topStay is how long an Append keeps a log remembered. It is longer than
	// required, so that Tops need not prolong a log that is in use.
	topStay = store.MetaTTL + time.Hour
	// topProlonged is how long Tops keeps a log remembered, if less than
	// store.MetaTTL is left.
	topProlonged = store.MetaTTL + 12*time.Hour
	// emptyStay and emptyProlonged are the same for Begin, and for store.EmptyTTL.
	emptyStay      = store.EmptyTTL + 5*time.Minute
	emptyProlonged = store.EmptyTTL + 15*time.Minute
	// prolongTimeout bounds one attempt. The next Tops makes another one.
	prolongTimeout = 5 * time.Second

	// topKeys is the maximum number of keys for one script.
	topKeys = 500
	// topFields is the number of fields in the value of a top's key. topEnds is
	// the index of the field that says when it ends.
	topFields, topEnds = 9, 6
)

// Tops implements [store.Log]. It prolongs a log without Appends twice a day, and one
// that has had none each quarter of an hour, a moment after Tops has returned.
func (s *Store) Tops(ctx context.Context, channels []string) ([]store.Position, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	tops := make([]store.Position, len(channels))
	if len(channels) == 0 {
		return tops, nil
	}
	var calls []*call
	for names := range slices.Chunk(channels, s.topKeys) {
		keys := make([]string, len(names))
		for i, name := range names {
			keys[i] = s.keys.top(name)
		}
		calls = append(calls, newCall(topsScript, keys, flag(s.cluster == nil)))
	}
	do := s.do
	if len(channels) == 1 { // a subscriber's; the hub's own questions are for many, and few
		do = func(ctx context.Context, calls ...*call) error { return s.askLog(ctx, channels[0], calls...) }
	}
	if err := do(ctx, calls...); err != nil {
		return nil, s.explain(ctx, fmt.Sprintf("read the tops of %d channels", len(channels)), err)
	}
	var ending, empty []string
	at := 0
	for _, c := range calls {
		reply, err := c.cmd.Slice()
		if err != nil || len(reply) != 2 {
			return nil, unexpected("tops", c.cmd.Val())
		}
		now, _ := reply[0].(int64)
		lines, _ := reply[1].([]any)
		if len(lines) != len(c.keys) {
			return nil, unexpected("tops", reply[1])
		}
		for i, line := range lines {
			if text, ok := line.(string); ok { // otherwise the log is absent
				top, ends, ok := parseTop(text)
				if !ok {
					return nil, fmt.Errorf("redisstore: the key %q holds a value that this library did not write", c.keys[i])
				}
				tops[at] = top
				switch left := ends - now; {
				case top.Offset == 0 && left < store.EmptyTTL.Milliseconds():
					empty = append(empty, c.keys[i])
				case top.Offset > 0 && left < store.MetaTTL.Milliseconds():
					ending = append(ending, c.keys[i])
				}
			}
			at++
		}
	}
	if len(ending)+len(empty) > 0 {
		s.prolong(ending, empty)
	}
	return tops, nil
}

// Begin implements [store.Log]. To repeat it does no harm, so it is tried again if the
// answer was lost.
func (s *Store) Begin(ctx context.Context, channel string) (store.Position, error) {
	if err := s.enter(ctx); err != nil {
		return store.Position{}, err
	}
	c := s.beginCall(channel)
	if err := s.askLog(ctx, channel, c); err != nil {
		return store.Position{}, s.explain(ctx, fmt.Sprintf("begin the log of %q", channel), err)
	}
	reply, err := c.cmd.Slice()
	if err != nil || len(reply) != 2 {
		return store.Position{}, unexpected("begin", c.cmd.Val())
	}
	epoch, _ := reply[0].(string)
	offset, _ := reply[1].(int64)
	return store.Position{Epoch: epoch, Offset: uint64(offset)}, nil
}

func (s *Store) beginCall(channel string) *call {
	c := newCall(beginScript, []string{s.keys.log(channel), s.keys.top(channel)}, millis(emptyStay), newID())
	c.epoch = 1
	return c
}

// parseTop parses the value of a top's key.
func parseTop(line string) (top store.Position, ends int64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != topFields && len(fields) != topFields+1 { // a top has one more after a retried Append
		return top, 0, false
	}
	offset, err := strconv.ParseUint(fields[2], 10, 64)
	ends, err2 := strconv.ParseInt(fields[topEnds], 10, 64)
	return store.Position{Epoch: fields[0], Offset: offset}, ends, err == nil && err2 == nil
}

// prolong postpones the end of logs. It runs in the background, since a server
// that is full or refuses writes can still be read. At most one attempt runs at
// a time. Close waits for it.
func (s *Store) prolong(tops, empty []string) {
	if !s.prolonging.CompareAndSwap(false, true) {
		return
	}
	ok := s.calls.Run(func() {
		defer s.prolonging.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, prolongTimeout)
		defer cancel()
		var calls []*call
		add := func(tops []string, stay time.Duration) {
			for keys := range slices.Chunk(tops, s.topKeys) {
				c := newCall(prolongScript, keys, stay.Milliseconds())
				c.ctx = ctx
				calls = append(calls, c)
			}
		}
		add(tops, topProlonged)
		add(empty, emptyProlonged)
		s.send(ctx, calls) // if it fails, the next Tops tries again
	})
	if !ok {
		s.prolonging.Store(false)
	}
}
