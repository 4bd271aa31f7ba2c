package zmqmesh_test

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// quiet logs nothing.
func quiet(o *zmqmesh.Options) { o.Logger = slog.New(slog.DiscardHandler) }

// BenchmarkUnwanted publishes to a linked replica that wants other channels.
func BenchmarkUnwanted(b *testing.B) {
	a, c := newMesh(b, "a", quiet), newMesh(b, "c", quiet)
	for i := range 10_000 {
		require.NoError(b, c.Subscribe(fmt.Sprint("channel-", i)))
	}
	link(b, c, "a", a.Address())
	p := mesh.Packet{Channel: "nobody", Header: "message", Body: make([]byte, 100)}
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Publish(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRaw sends bodies of 100 bytes from one replica to another on 100
// channels, at most 100,000 ahead of it, so that nothing is dropped.
func BenchmarkRaw(b *testing.B) { plainAndSealed(b, raw) }

func raw(b *testing.B, a, c *zmqmesh.Mesh) {
	var got atomic.Int64
	up := bell.New()
	deliver(b, c, func(p mesh.Packet) {
		if p.Kind == mesh.KindMessage {
			got.Add(1)
		} else if p.Origin == "a" {
			up.Ring()
		}
	})
	channels := make([]string, 100)
	for i := range channels {
		channels[i] = fmt.Sprint("channel-", i)
		require.NoError(b, c.Subscribe(channels[i]))
	}
	c.SetPeers(map[string]string{"a": a.Address()})
	<-up
	body := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		for i%1_000 == 0 && int64(i)-got.Load() > 100_000 {
			time.Sleep(50 * time.Microsecond) // between two looks, so that the queue never overflows
		}
		if err := a.Publish(b.Context(), mesh.Packet{Channel: channels[i%100], Header: "message", Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	for got.Load() < int64(b.N) {
		time.Sleep(50 * time.Microsecond) // between two looks
	}
	b.StopTimer()
	require.Zero(b, a.Status().Dropped)
}

// plainAndSealed runs a benchmark with two replicas, "a" and "c", without a key
// and with one.
func plainAndSealed(b *testing.B, run func(b *testing.B, a, c *zmqmesh.Mesh)) {
	for name, key := range map[string]string{"plain": "", "sealed": "0123456789abcdef"} {
		b.Run(name, func(b *testing.B) {
			run(b, newMesh(b, "a", quiet, withKey(key)), newMesh(b, "c", quiet, withKey(key)))
		})
	}
}

// BenchmarkLatency sends one message of 100 bytes at a time, and reports the
// median of how long it takes.
func BenchmarkLatency(b *testing.B) {
	plainAndSealed(b, func(b *testing.B, a, c *zmqmesh.Mesh) {
		got := make(chan mesh.Packet, 16)
		deliver(b, c, func(p mesh.Packet) { got <- p })
		require.NoError(b, c.Subscribe("ch"))
		c.SetPeers(map[string]string{"a": a.Address()})
		for p := range got {
			if p.Kind == mesh.KindLost && p.Origin == "a" {
				break
			}
		}
		body := make([]byte, 100)
		took := make([]time.Duration, 0, b.N)
		b.ResetTimer()
		for range b.N {
			begin := time.Now()
			if err := a.Publish(b.Context(), mesh.Packet{Channel: "ch", Header: "message", Body: body}); err != nil {
				b.Fatal(err)
			}
			for p := range got {
				if p.Kind == mesh.KindMessage {
					break
				}
			}
			took = append(took, time.Since(begin))
		}
		b.StopTimer()
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	})
}

// BenchmarkJoin links a replica that wants 100,000 channels, up to its first
// echo.
func BenchmarkJoin(b *testing.B) {
	a := newMesh(b, "a", quiet)
	for b.Loop() {
		b.StopTimer()
		c := newMesh(b, "c", quiet)
		for i := range 100_000 {
			require.NoError(b, c.Subscribe(fmt.Sprint("channel-", i)))
		}
		up := receive(b, c)
		b.StartTimer()
		c.SetPeers(map[string]string{"a": a.Address()})
		up.await(b, lostOf("a"))
		b.StopTimer()
		require.NoError(b, c.Close())
		b.StartTimer()
	}
}
