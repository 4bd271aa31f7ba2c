package latency_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/latency"
)

func TestEachDurationIsInItsBucket(t *testing.T) {
	bounds := latency.Bounds()
	require.True(t, slices.IsSorted(bounds))
	for i, bound := range bounds {
		var h latency.Histogram
		h.Add(bound)
		h.Add(bound + 1)
		counts, sum := h.Read()
		want := make([]uint64, len(bounds)+1)
		want[i], want[i+1] = 1, 1
		require.Equal(t, want, counts, bound)
		require.Equal(t, 2*bound+1, sum)
	}
}

func TestManyAddAtOnce(t *testing.T) {
	var h latency.Histogram
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				h.Add(time.Millisecond)
				h.Read()
			}
		})
	}
	all.Wait()
	counts, sum := h.Read()
	require.EqualValues(t, 4000, slices.Max(counts))
	require.Equal(t, 4*time.Second, sum)
}

func BenchmarkAdd(b *testing.B) {
	var h latency.Histogram
	for b.Loop() {
		h.Add(time.Millisecond)
	}
}
