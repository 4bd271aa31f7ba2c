package redismesh_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// BenchmarkPackets sends packets of 100 bytes on 100 channels from all
// processors of one replica to another, at most 20,000 ahead.
func BenchmarkPackets(b *testing.B) {
	s := redistest.Start(b)
	from, to := open(b, s.Client(), "", "a"), open(b, s.Client(), "", "b")
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprint("channel-", i)
		require.NoError(b, to.Subscribe(names[i]))
	}
	var ready, got atomic.Int64
	var receiving sync.WaitGroup
	b.Cleanup(receiving.Wait)
	receiving.Go(func() { // ends with the benchmark
		_ = to.Receive(b.Context(), func(p mesh.Packet) {
			switch {
			case p.Header != "":
				got.Add(1)
			case p.Kind == mesh.KindMessage:
				ready.Add(1)
			}
		})
	})
	eventually(b, "the subscriptions are active", func() bool {
		require.NoError(b, from.Publish(b.Context(), mesh.Packet{Channel: names[99]}))
		return ready.Load() > 0
	})
	body := json.RawMessage(`"` + strings.Repeat("x", 98) + `"`)
	var sent atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := sent.Add(1)
			for n-got.Load() > 20_000 {
				time.Sleep(50 * time.Microsecond) // between two looks, so that the queue never overflows
			}
			_ = from.Publish(b.Context(), mesh.Packet{Channel: names[n%100], Header: "h", Body: body})
		}
	})
	eventually(b, "all arrive", func() bool { return got.Load() >= int64(b.N) })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}
