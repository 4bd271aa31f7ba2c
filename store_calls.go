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
	// holder is the Store if it is a store.Holder. Otherwise it is a memory of the hub's
	// own: then this replica decides by what it has itself.
	holder    store.Holder
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
	callHold

	storeMethods // how many there are
)

var storeMethodNames = [storeMethods]string{
	"append", "begin", "range", "tops", "report", "forget", "replicas", "channels", "channel", "update_presence", "members", "hold",
}

func countCalls(s store.Store, told *atomic.Pointer[observers]) (*storeCalls, error) {
	_, memory := s.(*store.Memory)
	c := &storeCalls{Store: s, observers: told, memory: memory}
	var ok bool
	if c.holder, ok = s.(store.Holder); !ok {
		own, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, err
		}
		c.holder = own
	}
	return c, nil
}

// A storeCall is a call that is under way.
type storeCall struct {
	ctx   context.Context // of the call
	of    *callCounts
	began time.Time // zero if the call is not timed
	step  observed
}

// errStorePanics is what a call has failed with that does not return.
var errStorePanics = errors.New("channels: the store panics")

// begin counts a call. Who calls it defers end, and then returns what the Store does: so
// a call also ends if the Store panics. err is the caller's result, which is not kept:
// that would be an allocation for each call.
func (s *storeCalls) begin(ctx context.Context, m storeMethod, channel string, err *error) storeCall {
	*err = errStorePanics
	c := storeCall{ctx: ctx, of: &s.calls[m]}
	if n := c.of.n.Add(1); !s.memory || n%memorySample == 1 {
		c.began = time.Now()
	}
	if by := s.observers.Load(); by != nil {
		c.ctx, c.step = by.begin(ctx, Step{Kind: StepStore, Call: storeMethodNames[m], Channel: channel})
	}
	return c
}

func (c *storeCall) end(err error) {
	if !c.began.IsZero() {
		c.of.took.Add(time.Since(c.began))
	}
	c.step.end(c.ctx, err)
	if err != nil && !errors.Is(err, store.ErrKeyReused) && !errors.Is(err, store.ErrClosed) && !errors.Is(err, context.Canceled) {
		c.of.failed.Add(1)
	}
}

func (s *storeCalls) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (_ store.Appended, err error) {
	c := s.begin(ctx, callAppend, channel, &err)
	defer func() { c.end(err) }()
	return s.Store.Append(c.ctx, channel, e, o)
}

func (s *storeCalls) Begin(ctx context.Context, channel string) (_ store.Position, err error) {
	c := s.begin(ctx, callBegin, channel, &err)
	defer func() { c.end(err) }()
	return s.Store.Begin(c.ctx, channel)
}

func (s *storeCalls) Range(ctx context.Context, channel string, q store.Query) (_ store.Page, err error) {
	c := s.begin(ctx, callRange, channel, &err)
	defer func() { c.end(err) }()
	return s.Store.Range(c.ctx, channel, q)
}

func (s *storeCalls) Tops(ctx context.Context, channels []string) (_ []store.Position, err error) {
	c := s.begin(ctx, callTops, "", &err)
	defer func() { c.end(err) }()
	return s.Store.Tops(c.ctx, channels)
}

func (s *storeCalls) Report(ctx context.Context, r store.Report) (known bool, err error) {
	c := s.begin(ctx, callReport, "", &err)
	defer func() { c.end(err) }()
	return s.Store.Report(c.ctx, r)
}

func (s *storeCalls) Forget(ctx context.Context, replica string) (err error) {
	c := s.begin(ctx, callForget, "", &err)
	defer func() { c.end(err) }()
	return s.Store.Forget(c.ctx, replica)
}

func (s *storeCalls) Replicas(ctx context.Context) (_ []store.Replica, err error) {
	c := s.begin(ctx, callReplicas, "", &err)
	defer func() { c.end(err) }()
	return s.Store.Replicas(c.ctx)
}

func (s *storeCalls) Channels(ctx context.Context, prefix, after string, limit int) (_ []store.Count, err error) {
	c := s.begin(ctx, callChannels, "", &err)
	defer func() { c.end(err) }()
	return s.Store.Channels(c.ctx, prefix, after, limit)
}

func (s *storeCalls) Channel(ctx context.Context, name string) (_ store.Count, err error) {
	c := s.begin(ctx, callChannel, name, &err)
	defer func() { c.end(err) }()
	return s.Store.Channel(c.ctx, name)
}

func (s *storeCalls) UpdatePresence(ctx context.Context, replica string, changes []store.PresenceChange) (err error) {
	c := s.begin(ctx, callPresence, "", &err)
	defer func() { c.end(err) }()
	return s.Store.UpdatePresence(c.ctx, replica, changes)
}

func (s *storeCalls) Members(ctx context.Context, channel string, limit int) (_ []store.Member, total int, err error) {
	c := s.begin(ctx, callMembers, channel, &err)
	defer func() { c.end(err) }()
	return s.Store.Members(c.ctx, channel, limit)
}

func (s *storeCalls) Hold(ctx context.Context, replica string, h store.Holding) (_ store.Held, err error) {
	c := s.begin(ctx, callHold, "", &err)
	defer func() { c.end(err) }()
	return s.holder.Hold(c.ctx, replica, h)
}
