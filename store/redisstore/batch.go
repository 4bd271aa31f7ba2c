package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Appends of many goroutines travel together: while a few batches are on their
// way, further Appends wait, and the next batch takes them all. An Append that
// comes alone is sent at once.
const (
	flights      = 2       // batches of one lane that are on their way at a time
	batchCalls   = 256     // calls in a batch
	batchBytes   = 1 << 20 // the bytes that the calls of a batch carry, unless it has only one call
	clusterLanes = 16      // each takes a sixteenth of the slots
	questions    = 4       // of subscribers, in one lane, on their way at a time

	// linger is how long a goroutine with nothing to send waits for more. A new
	// goroutine would first have to grow its stack (BenchmarkAppendAlone).
	linger = time.Second
)

// lane is a queue of Appends that wait for the next batch, and of questions that wait
// until fewer are on their way.
type lane struct {
	asking chan struct{} // has room for as many as may be on their way

	mu      sync.Mutex // guards the fields below
	waiting []*appending
	left    int // upper bound for those in waiting whose callers have gone
	flying  int // goroutines in fly
	idle    int // those of them that wait to be woken
	wake    chan struct{}
}

// appending is an Append that waits.
type appending struct {
	call  *call
	bytes int
	state atomic.Int32
}

const (
	queued int32 = iota
	taken        // it may be sent; its outcome is open
	left         // its caller has gone; it will not be sent
)

// lane returns the lane of a channel. In a Cluster, neighbouring slots mostly
// have the same server, so they share a lane.
func (s *Store) lane(channel string) *lane {
	if len(s.lanes) == 1 {
		return &s.lanes[0]
	}
	return &s.lanes[slot(escapeTag(channel))*len(s.lanes)/slots]
}

// askLog is do for what subscribers need to know of a channel. If thousands come at once,
// their questions must not take all connections of the client, which has few (go-redis:
// 10 for each processor), from Appends and heartbeats.
func (s *Store) askLog(ctx context.Context, channel string, calls ...*call) error {
	asking := s.lane(channel).asking
	select {
	case asking <- struct{}{}:
		defer func() { <-asking }()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return context.Canceled // explain turns it into ErrClosed
	}
	return s.do(ctx, calls...)
}

// submit queues a for sending. It returns false after Close.
func (s *Store) submit(l *lane, a *appending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake == nil {
		l.wake = make(chan struct{}, flights) // its length never exceeds the number of goroutines
	}
	switch {
	case l.idle > 0:
		l.idle--
		l.wake <- struct{}{}
	case l.flying < flights:
		if !s.calls.Run(func() { s.fly(l) }) {
			return false
		}
		l.flying++
	}
	l.waiting = append(l.waiting, a)
	return true
}

// leave removes an Append whose caller no longer waits. While Redis hangs, many
// callers may come and go, so their data is not kept.
func (l *lane) leave(a *appending) {
	if !a.state.CompareAndSwap(queued, left) {
		return
	}
	a.call = nil // sendBatch does not look at it
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left++; l.left > batchCalls && l.left > len(l.waiting)/2 {
		l.waiting = slices.DeleteFunc(l.waiting, func(a *appending) bool { return a.state.Load() == left })
		l.left = 0
	}
}

// fly sends batch after batch. It ends if nothing comes for a while, or with
// Close, which waits for it.
func (s *Store) fly(l *lane) {
	t := time.NewTimer(linger)
	defer t.Stop()
	for {
		l.mu.Lock()
		batch := l.next()
		if len(batch) == 0 {
			l.idle++
			l.mu.Unlock()
			t.Reset(linger)
			if s.rest(l, t) {
				continue
			}
			return
		}
		l.mu.Unlock()
		s.sendBatch(batch)
	}
}

// rest waits until there is something to send. It returns false if this
// goroutine is to end.
func (s *Store) rest(l *lane, t *time.Timer) bool {
	select {
	case <-l.wake:
		return true
	case <-t.C:
	case <-s.ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == 0 { // someone is waking one of us and has already decremented idle
		<-l.wake
		return true
	}
	l.idle--
	l.flying--
	return false
}

// next takes the Appends for one batch from the queue. The caller holds l.mu.
func (l *lane) next() []*appending {
	n, bytes := 0, 0
	for n < len(l.waiting) && n < batchCalls && (n == 0 || bytes+l.waiting[n].bytes <= batchBytes) {
		bytes += l.waiting[n].bytes
		n++
	}
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	if len(l.waiting) == 0 {
		l.waiting, l.left = nil, 0
	}
	return batch
}

func (s *Store) sendBatch(batch []*appending) {
	calls := make([]*call, 0, len(batch))
	var latest time.Time
	bounded := true
	for _, a := range batch {
		if !a.state.CompareAndSwap(queued, taken) {
			continue
		}
		calls = append(calls, a.call)
		d, ok := a.call.ctx.Deadline()
		bounded = bounded && ok
		if d.After(latest) {
			latest = d
		}
	}
	if len(calls) == 0 {
		return
	}
	ctx := s.ctx
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, latest)
		defer cancel()
	}
	s.send(ctx, calls)
}
