package redisstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/channels-go/channels/store"
)

// Append implements [store.Log]. It runs one script. Concurrent Appends share
// their round trips.
//
// If the connection breaks during the call, Append tries again by itself. The
// message still gets into the log only once: the script finds it by the id of
// the call. A retry fails only if the log no longer holds every entry since the
// first attempt, and from the tenth of a second before it. The message may then
// have been in the log or not. With o.Key this does not happen.
func (s *Store) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if err := s.enter(ctx); err != nil {
		return store.Appended{}, err
	}
	if err := check(o); err != nil {
		return store.Appended{}, err
	}
	c := s.appendCall(channel, e, o)
	c.ctx, c.done = ctx, make(chan struct{})
	a := &appending{call: c, bytes: len(e.Header) + len(e.Body) + len(e.Info) + 200}
	lane := s.lane(channel)
	if !s.submit(lane, a) {
		return store.Appended{}, store.ErrClosed
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		lane.leave(a)
		return store.Appended{}, s.explain(ctx, fmt.Sprintf("append to %q", channel), ctx.Err())
	case <-s.ctx.Done():
		return store.Appended{}, store.ErrClosed
	}
	reply, err := c.cmd.Slice()
	if err != nil {
		return store.Appended{}, s.explain(ctx, fmt.Sprintf("append to %q", channel), err)
	}
	if len(reply) != 4 {
		return store.Appended{}, unexpected("append", reply)
	}
	epoch, _ := reply[0].(string)
	offset, _ := reply[1].(int64)
	duplicate, _ := reply[2].(int64)
	if duplicate == 2 {
		return store.Appended{}, fmt.Errorf("redisstore: append to %q: %w", channel, store.ErrKeyReused)
	}
	done := store.Appended{Position: store.Position{Epoch: epoch, Offset: uint64(offset)}, Duplicate: duplicate == 1}
	if at, _ := reply[3].(int64); at > 0 {
		done.Time = time.UnixMilli(at)
	}
	return done, nil
}

// appendCall returns the script call for an Append. It does not keep e.Body and
// e.Info.
func (s *Store) appendCall(channel string, e store.Entry, o store.AppendOptions) *call {
	c := newCall(appendScript, []string{s.keys.log(channel), s.keys.top(channel)})
	id := newID()
	if len(e.Info) > 0 {
		id += " " + string(e.Info)
	}
	c.args = []any{e.Header, bytes.Clone(e.Body), o.Size, millis(o.TTL), newID(), millis(topStay), id, 0}
	c.epoch, c.since = 4, 7
	if o.Key != "" {
		c.keys = append(c.keys, s.keys.once(channel, o.Key))
		c.args = append(c.args, millis(o.KeyTTL), o.Digest)
	}
	return c
}

// millis converts a TTL for the scripts. "For ever" becomes a hundred years.
func millis(d time.Duration) int64 { return min(d, 100*365*24*time.Hour).Milliseconds() }

func check(o store.AppendOptions) error {
	switch {
	case o.Size < 1:
		return fmt.Errorf("redisstore: AppendOptions.Size is %d; it must be at least 1", o.Size)
	case o.TTL < time.Millisecond:
		return fmt.Errorf("redisstore: AppendOptions.TTL is %v; it must be at least 1ms", o.TTL)
	case o.Key != "" && o.KeyTTL < time.Millisecond:
		return fmt.Errorf("redisstore: AppendOptions.KeyTTL is %v; with a Key it must be at least 1ms", o.KeyTTL)
	case len(o.Digest) > 64:
		return fmt.Errorf("redisstore: AppendOptions.Digest has %d bytes; it may have up to 64", len(o.Digest))
	}
	return nil
}

// newID returns 50 random bits as 10 letters and digits: an epoch, or an id that
// is unique among the Appends of the last minutes.
func newID() string { return rand.Text()[:10] }
