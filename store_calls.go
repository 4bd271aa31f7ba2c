package channels

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/latency"
	"github.com/channels-go/channels/store"
)

// storeCalls is the hub's Store. It counts the calls, and how long they take, and tells
// observers.
type storeCalls struct {
	store.Store
	observers *atomic.Pointer[observers] // the hub's
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

func countCalls(s store.Store, told *atomic.Pointer[observers]) *storeCalls {
	_, memory := s.(*store.Memory)
	return &storeCalls{Store: s, observers: told, memory: memory}
}

// A storeCall is a call that is under way.
type storeCall struct {
	began time.Time // zero if the call is not timed
	step  observed
}

// begin counts a call, and returns its context.
func (s *storeCalls) begin(ctx context.Context, m storeMethod, channel string) (context.Context, storeCall) {
	var c storeCall
	if n := s.calls[m].n.Add(1); !s.memory || n%memorySample == 1 {
		c.began = time.Now()
	}
	if by := s.observers.Load(); by != nil {
		ctx, c.step = by.begin(ctx, Step{Kind: StepStore, Call: storeMethodNames[m], Channel: channel})
	}
	return ctx, c
}

func (s *storeCalls) end(ctx context.Context, m storeMethod, call *storeCall, err error) {
	c := &s.calls[m]
	if !call.began.IsZero() {
		c.took.Add(time.Since(call.began))
	}
	call.step.end(ctx, err)
	if err != nil && !errors.Is(err, store.ErrKeyReused) && !errors.Is(err, store.ErrClosed) && !errors.Is(err, context.Canceled) {
		c.failed.Add(1)
	}
}

func (s *storeCalls) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	ctx, c := s.begin(ctx, callAppend, channel)
	pos, dup, err := s.Store.Append(ctx, channel, e, o)
	s.end(ctx, callAppend, &c, err)
	return pos, dup, err
}

func (s *storeCalls) Begin(ctx context.Context, channel string) (store.Position, error) {
	ctx, c := s.begin(ctx, callBegin, channel)
	pos, err := s.Store.Begin(ctx, channel)
	s.end(ctx, callBegin, &c, err)
	return pos, err
}

func (s *storeCalls) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	ctx, c := s.begin(ctx, callRange, channel)
	page, err := s.Store.Range(ctx, channel, q)
	s.end(ctx, callRange, &c, err)
	return page, err
}

func (s *storeCalls) Tops(ctx context.Context, channels []string) ([]store.Position, error) {
	ctx, c := s.begin(ctx, callTops, "")
	tops, err := s.Store.Tops(ctx, channels)
	s.end(ctx, callTops, &c, err)
	return tops, err
}

func (s *storeCalls) Report(ctx context.Context, r store.Report) (bool, error) {
	ctx, c := s.begin(ctx, callReport, "")
	known, err := s.Store.Report(ctx, r)
	s.end(ctx, callReport, &c, err)
	return known, err
}

func (s *storeCalls) Forget(ctx context.Context, replica string) error {
	ctx, c := s.begin(ctx, callForget, "")
	err := s.Store.Forget(ctx, replica)
	s.end(ctx, callForget, &c, err)
	return err
}

func (s *storeCalls) Replicas(ctx context.Context) ([]store.Replica, error) {
	ctx, c := s.begin(ctx, callReplicas, "")
	all, err := s.Store.Replicas(ctx)
	s.end(ctx, callReplicas, &c, err)
	return all, err
}

func (s *storeCalls) Channels(ctx context.Context, prefix, after string, limit int) ([]store.Count, error) {
	ctx, c := s.begin(ctx, callChannels, "")
	counts, err := s.Store.Channels(ctx, prefix, after, limit)
	s.end(ctx, callChannels, &c, err)
	return counts, err
}

func (s *storeCalls) Channel(ctx context.Context, name string) (store.Count, error) {
	ctx, c := s.begin(ctx, callChannel, name)
	count, err := s.Store.Channel(ctx, name)
	s.end(ctx, callChannel, &c, err)
	return count, err
}

func (s *storeCalls) UpdatePresence(ctx context.Context, replica string, changes []store.PresenceChange) error {
	ctx, c := s.begin(ctx, callPresence, "")
	err := s.Store.UpdatePresence(ctx, replica, changes)
	s.end(ctx, callPresence, &c, err)
	return err
}

func (s *storeCalls) Members(ctx context.Context, channel string, limit int) ([]store.Member, int, error) {
	ctx, c := s.begin(ctx, callMembers, channel)
	members, total, err := s.Store.Members(ctx, channel, limit)
	s.end(ctx, callMembers, &c, err)
	return members, total, err
}
