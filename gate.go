package channels

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A gate counts who is inside, can be closed, and then waits until all have
// left. It is a sync.WaitGroup to which nobody is added after Wait.
type gate struct {
	n    atomic.Int64 // who is inside, plus gateClosed
	once sync.Once
	mu   sync.Mutex
	idle chan struct{} // closed when nobody is inside
}

const gateClosed = 1 << 62

// enter returns false where the gate is closed; otherwise leave must follow.
func (g *gate) enter() bool {
	if g.n.Add(1) > gateClosed {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.n.Add(-1) == gateClosed {
		g.once.Do(func() { close(g.done()) })
	}
}

// run calls f in a goroutine that counts as inside; false where it is closed.
func (g *gate) run(f func()) bool {
	if !g.enter() {
		return false
	}
	go func() {
		defer g.leave()
		f()
	}()
	return true
}

func (g *gate) closed() bool { return g.n.Load() >= gateClosed }

// shut closes the gate. It may be repeated.
func (g *gate) shut() {
	for {
		n := g.n.Load()
		if n >= gateClosed {
			return
		}
		if g.n.CompareAndSwap(n, n+gateClosed) {
			if n == 0 {
				g.once.Do(func() { close(g.done()) })
			}
			return
		}
	}
}

// wait waits until the gate is closed and all have left, or ctx ends.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) done() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}

// backoff waits longer after each failure, with jitter so that replicas do
// not knock at a recovering store in step.
type backoff struct{ next time.Duration }

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
)

func newBackoff() *backoff { return &backoff{backoffMin} }

func (b *backoff) reset() { b.next = backoffMin }

// wait returns false where ctx ends first.
func (b *backoff) wait(ctx context.Context) bool {
	d := spread(b.next)
	b.next = min(b.next*2, backoffMax)
	return pause(ctx, d)
}

// spread returns d on average, and d/2 at least: for a time that many are told
// at once, so that they do not come back in step.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pause returns false where ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
