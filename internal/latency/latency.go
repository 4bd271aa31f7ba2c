// Package latency counts how long things take.
package latency

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Histogram counts durations in buckets. The zero value is empty. Its methods may
// be called concurrently.
type Histogram struct {
	counts [len(bounds) + 1]atomic.Uint64 // one for each bound, and one for what takes longer
	sum    atomic.Int64                   // in nanoseconds
}

// bounds are the upper ends of the buckets. They are the same for all histograms: a
// read of the Memory store takes microseconds, a slow subscriber seconds.
var bounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// Bounds returns the upper ends of all buckets but the last, which has none. The
// caller must not change them.
func Bounds() []time.Duration { return bounds[:] }

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Read returns how many durations each bucket has, and the sum of all. One that is
// being added may be in only one of the two.
func (h *Histogram) Read() (counts []uint64, sum time.Duration) {
	counts = make([]uint64, len(h.counts))
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
	}
	return counts, time.Duration(h.sum.Load())
}
