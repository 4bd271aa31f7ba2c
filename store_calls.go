package channels

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/latency"
	"github.com/channels-go/channels/store"
)

// storeCalls is the hub's Store. It counts the calls, and how long they take.
type storeCalls struct {
	store.Store
	// A Memory answers in less time than it takes to read the clock a few times, so only
	// one in memorySample of its calls is timed.
	memory bool
	calls  [storeMethods]callCounts
}

const memorySample = 16

type callCounts struct {
	n, failed atomic.Int64
	took      latency.Histogram
}

// A storeMethod is a method of the Store.
type storeMethod uint8

const (
	callAppend storeMethod = iota
	callBegin
	callRange
	callTops
	callReport
	callForget
	callReplicas
	callChannels
	callChannel
	callPresence
	callMembers

	storeMethods // how many there are
)

var storeMethodNames = [storeMethods]string{
	"append", "begin", "range", "tops", "report", "forget", "replicas", "channels", "channel", "update_presence", "members",
}

func countCalls(s store.Store) *storeCalls {
	_, memory := s.(*store.Memory)
	return &storeCalls{Store: s, memory: memory}
}

// begin counts a call. It returns the zero time if the call is not timed.
func (s *storeCalls) begin(m storeMethod) time.Time {
	if n := s.calls[m].n.Add(1); s.memory && n%memorySample != 1 {
		return time.Time{}
	}
	return time.Now()
}

func (s *storeCalls) end(m storeMethod, began time.Time, err error) {
	c := &s.calls[m]
	if !began.IsZero() {
		c.took.Add(time.Since(began))
	}
	if err != nil && !errors.Is(err, store.ErrKeyReused) && !errors.Is(err, store.ErrClosed) && !errors.Is(err, context.Canceled) {
		c.failed.Add(1)
	}
}

func (s *storeCalls) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	t := s.begin(callAppend)
	pos, dup, err := s.Store.Append(ctx, channel, e, o)
	s.end(callAppend, t, err)
	return pos, dup, err
}

func (s *storeCalls) Begin(ctx context.Context, channel string) (store.Position, error) {
	t := s.begin(callBegin)
	pos, err := s.Store.Begin(ctx, channel)
	s.end(callBegin, t, err)
	return pos, err
}

func (s *storeCalls) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	t := s.begin(callRange)
	page, err := s.Store.Range(ctx, channel, q)
	s.end(callRange, t, err)
	return page, err
}

func (s *storeCalls) Tops(ctx context.Context, channels []string) ([]store.Position, error) {
	t := s.begin(callTops)
	tops, err := s.Store.Tops(ctx, channels)
	s.end(callTops, t, err)
	return tops, err
}

func (s *storeCalls) Report(ctx context.Context, r store.Report) (bool, error) {
	t := s.begin(callReport)
	known, err := s.Store.Report(ctx, r)
	s.end(callReport, t, err)
	return known, err
}

func (s *storeCalls) Forget(ctx context.Context, replica string) error {
	t := s.begin(callForget)
	err := s.Store.Forget(ctx, replica)
	s.end(callForget, t, err)
	return err
}

func (s *storeCalls) Replicas(ctx context.Context) ([]store.Replica, error) {
	t := s.begin(callReplicas)
	all, err := s.Store.Replicas(ctx)
	s.end(callReplicas, t, err)
	return all, err
}

func (s *storeCalls) Channels(ctx context.Context, prefix, after string, limit int) ([]store.Count, error) {
	t := s.begin(callChannels)
	counts, err := s.Store.Channels(ctx, prefix, after, limit)
	s.end(callChannels, t, err)
	return counts, err
}

func (s *storeCalls) Channel(ctx context.Context, name string) (store.Count, error) {
	t := s.begin(callChannel)
	count, err := s.Store.Channel(ctx, name)
	s.end(callChannel, t, err)
	return count, err
}

func (s *storeCalls) UpdatePresence(ctx context.Context, replica string, changes []store.PresenceChange) error {
	t := s.begin(callPresence)
	err := s.Store.UpdatePresence(ctx, replica, changes)
	s.end(callPresence, t, err)
	return err
}

func (s *storeCalls) Members(ctx context.Context, channel string, limit int) ([]store.Member, int, error) {
	t := s.begin(callMembers)
	members, total, err := s.Store.Members(ctx, channel, limit)
	s.end(callMembers, t, err)
	return members, total, err
}
