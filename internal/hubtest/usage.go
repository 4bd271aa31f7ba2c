package hubtest

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// Usage is what the process holds: live heap, and goroutines.
type Usage struct {
	Heap       uint64
	Goroutines int
}

// Used measures it.
func Used() Usage {
	return Usage{uint64(basetest.Heap()), runtime.NumGoroutine()}
}

// Held wants no more live heap than before and this much. It looks once: what is
// only held for a moment counts, too.
func (before Usage) Held(t *testing.T, more int) {
	t.Helper()
	now := Used().Heap
	require.LessOrEqual(t, now, before.Heap+uint64(more), "the heap has grown by %d KiB", (int64(now)-int64(before.Heap))>>10)
}

// Left is Held for what clients leave when they have gone. It looks several times,
// since goroutines that are about to end hold buffers a little longer.
func (before Usage) Left(t *testing.T, more int) {
	t.Helper()
	for tries := 0; Used().Heap > before.Heap+uint64(more) && tries < 20; tries++ {
		time.Sleep(50 * time.Millisecond) // between two looks
	}
	before.Held(t, more)
}

// Over wants everything back, but for a little that pools keep.
func (before Usage) Over(t *testing.T) {
	t.Helper()
	const own = 1 // the hub's poller, which the first WebSocket starts
	basetest.Eventually(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= before.Goroutines+own })
	before.Left(t, 4<<20)
}

// Allocated is how many bytes were ever allocated, so that a short peak shows.
func Allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// PerClient is what one hostile client may cost beside what it has sent, with the
// test's own side.
const PerClient = 64 << 10
