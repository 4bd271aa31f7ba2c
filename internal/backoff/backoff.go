// Package backoff spreads retries over time.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff waits longer after each failure. The waits are random, so that
// replicas do not call on a recovering store in step. It belongs to one
// goroutine.
type Backoff struct{ next time.Duration }

const (
	shortest = 100 * time.Millisecond
	longest  = 2 * time.Second
)

// New returns a Backoff whose first wait is the shortest.
func New() *Backoff { return &Backoff{shortest} }

// Reset makes the next wait the shortest again.
func (b *Backoff) Reset() { b.next = shortest }

// Wait returns false if ctx ends first.
func (b *Backoff) Wait(ctx context.Context) bool {
	d := Spread(b.next)
	b.next = min(b.next*2, longest)
	return Pause(ctx, d)
}

// Spread returns a random time of at least d/2, and d on average. It is for a
// time that many clients are told at once, so that they do not return in step.
func Spread(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// Pause waits for d. It returns false if ctx ends first.
func Pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
