package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Appends of many goroutines travel together: while a few batches are on
// their way, those that come wait, and the next batch takes them all. One that
// comes alone is on its way at once.
const (
	flights      = 2       // batches of one lane on their way at a time
	batchCalls   = 256     // calls in a batch
	batchBytes   = 1 << 20 // what the calls of a batch carry, unless there is only one
	clusterLanes = 16      // each takes a sixteenth of the slots

	// linger is how long a goroutine that has nothing to send waits for more: a
	// fresh one would first have to grow its stack (BenchmarkAppendAlone).
	linger = time.Second
)

// lane is where appends wait for the next batch.
type lane struct {
	mu      sync.Mutex // guards the fields below
	waiting []*appending
	left    int // of them, at the most, those whose callers have gone
	flying  int // goroutines in fly
	idle    int // of them, those that wait to be woken
	wake    chan struct{}
}

// appending is one Append that waits.
type appending struct {
	call  *call
	bytes int
	state atomic.Int32
}

const (
	queued int32 = iota
	taken        // it may be sent: what becomes of it is open
	left         // its caller has gone, and it will not be sent
)

// lane returns the one for a channel: neighbouring slots, which have mostly one
// server, share one.
func (s *Store) lane(channel string) *lane {
	if len(s.lanes) == 1 {
		return &s.lanes[0]
	}
	return &s.lanes[slot(escapeTag(channel))*len(s.lanes)/slots]
}

// submit puts a on its way; false after Close.
func (s *Store) submit(l *lane, a *appending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake == nil {
		l.wake = make(chan struct{}, flights) // it never holds more than there are goroutines
	}
	switch {
	case l.idle > 0:
		l.idle--
		l.wake <- struct{}{}
	case l.flying < flights:
		if !s.goes(func() { s.fly(l) }) {
			return false
		}
		l.flying++
	}
	l.waiting = append(l.waiting, a)
	return true
}

// leave is for a caller that waits no longer. While Redis hangs many may come
// and go: what they wanted to send is not kept.
func (l *lane) leave(a *appending) {
	if !a.state.CompareAndSwap(queued, left) {
		return
	}
	a.call = nil // sendBatch won't look at it
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left++; l.left > batchCalls && l.left > len(l.waiting)/2 {
		l.waiting = slices.DeleteFunc(l.waiting, func(a *appending) bool { return a.state.Load() == left })
		l.left = 0
	}
}

// fly sends batch after batch. It ends when nothing came for a while, or with
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

// rest waits until there is something to send; false where that is no longer
// this goroutine's matter.
func (s *Store) rest(l *lane, t *time.Timer) bool {
	select {
	case <-l.wake:
		return true
	case <-t.C:
	case <-s.ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == 0 { // who woke one of us has counted it off already
		<-l.wake
		return true
	}
	l.idle--
	l.flying--
	return false
}

// next takes what goes together. l.mu is held.
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
