// Package gate counts callers inside, and closes for good.
package gate

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Gate counts the callers inside. It can be shut, and then waited for until all
// have left. It is a [sync.WaitGroup] to which nobody is added after Wait. All
// its methods may be called concurrently. The zero Gate is open.
type Gate struct {
	n    atomic.Int64 // callers inside, plus shut
	once sync.Once
	mu   sync.Mutex    // guards idle
	idle chan struct{} // closed when the gate is shut and nobody is inside
}

const shut = 1 << 62 // a bit of its own, above every count

// Enter returns false if the gate is shut. Otherwise, Leave must follow.
func (g *Gate) Enter() bool {
	if g.n.Add(1) > shut {
		g.Leave()
		return false
	}
	return true
}

// Leave ends what Enter has begun.
func (g *Gate) Leave() {
	if g.n.Add(-1) == shut {
		g.once.Do(func() { close(g.done()) })
	}
}

// Run calls f in a goroutine that counts as inside. It returns false, and does
// not call f, if the gate is shut.
func (g *Gate) Run(f func()) bool {
	if !g.Enter() {
		return false
	}
	go func() {
		defer g.Leave()
		f()
	}()
	return true
}

// Closed reports whether the gate is shut.
func (g *Gate) Closed() bool { return g.n.Load() >= shut }

// Shut closes the gate. It may be repeated.
func (g *Gate) Shut() {
	if g.n.Or(shut) == 0 {
		g.once.Do(func() { close(g.done()) })
	}
}

// Wait waits until the gate is shut and all have left, or until ctx ends.
func (g *Gate) Wait(ctx context.Context) error {
	select {
	case <-g.done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ShutWithin shuts the gate, and waits for at most d until all have left. Otherwise it
// returns an error.
func (g *Gate) ShutWithin(d time.Duration) error {
	g.Shut()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return g.Wait(ctx)
}

func (g *Gate) done() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	return g.idle
}
