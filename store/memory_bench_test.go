package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/channels-go/channels/store"
)

var (
	benchEntry = store.Entry{Header: "message", Body: []byte(`{"text":"a message of about one hundred bytes, which is what people write to each other all day"}`)}
	benchLimit = store.AppendOptions{Size: 100, TTL: time.Hour}
)

func BenchmarkMemoryAppend(b *testing.B) {
	run := func(name string, maxBytes int64, o store.AppendOptions, key, channel func(i int) string) {
		b.Run(name, func(b *testing.B) {
			m := newMemory(b, maxBytes)
			ctx := b.Context()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				o.Key = key(i)
				if _, err := m.Append(ctx, channel(i), benchEntry, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	none := func(int) string { return "" }
	one := func(int) string { return "ch" }
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprint("channel ", i)
	}
	many := func(i int) string { return names[i%len(names)] }
	keyed := benchLimit
	keyed.KeyTTL = time.Minute
	run("one log", 0, benchLimit, none, one)
	run("10000 logs", 0, benchLimit, none, many)
	run("10000 logs evicting", 8<<20, benchLimit, none, many)
	keys := make([]string, 1_000_000)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	run("10000 logs with keys", 0, keyed, func(i int) string { return keys[i%len(keys)] }, many)
}

func BenchmarkMemoryAppendParallel(b *testing.B) {
	m := newMemory(b, 0)
	ctx := b.Context()
	var worker atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := worker.Add(1)
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprint("channel ", w, " ", i)
		}
		for i := 0; pb.Next(); i++ {
			if _, err := m.Append(ctx, names[i%len(names)], benchEntry, benchLimit); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkMemoryRange20(b *testing.B) {
	m := newMemory(b, 0)
	for range 1000 {
		mustAppend(b, m, "ch", string(benchEntry.Body), plenty)
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		p, err := m.Range(ctx, "ch", store.Query{After: 500, Limit: 20})
		if err != nil || len(p.Entries) != 20 {
			b.Fatal(len(p.Entries), err)
		}
	}
}

// reported returns a Memory to which a replica has reported 100,000 channels.
func reported(b *testing.B) (*store.Memory, []store.Count) {
	m := newMemory(b, 0)
	counts := make([]store.Count, 100_000)
	for i := range counts {
		counts[i] = store.Count{Channel: fmt.Sprint("channel ", i), Subscribers: 1}
	}
	report(b, m, store.Report{Replica: store.Replica{ID: "a"}, Channels: counts})
	return m, counts
}

func BenchmarkMemoryChannels(b *testing.B) {
	m, _ := reported(b)
	ctx := b.Context()
	page := func(name, prefix, after string, limit int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got, err := m.Channels(ctx, prefix, after, limit); err != nil || len(got) != limit {
					b.Fatal(len(got), err)
				}
			}
		})
	}
	page("first 1000", "", "", 1000)
	page("1000 from the middle", "", "channel 5", 1000)
	page("100 by prefix", "channel 77", "", 100)
}

func BenchmarkMemoryReport(b *testing.B) {
	m, counts := reported(b)
	ctx := b.Context()
	b.Run("100 of 100000 changed", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			changed := counts[i*100%100_000:][:100]
			for j := range changed {
				changed[j].Subscribers++
			}
			if _, err := m.Report(ctx, store.Report{Replica: store.Replica{ID: "a"}, Channels: changed}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
