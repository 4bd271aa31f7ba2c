//go:build !windows

package redisstore_test

import (
	"testing"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

func BenchmarkAppendAlone(b *testing.B) {
	s := open(b, redistest.Start(b).Client())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(b.Context(), "c", entry("x"), plenty); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendByMany(b *testing.B) {
	s := open(b, redistest.Start(b).Client())
	b.SetParallelism(128)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.Append(b.Context(), "c", entry("x"), plenty); err != nil {
				b.Fatal(err)
			}
		}
	})
}
