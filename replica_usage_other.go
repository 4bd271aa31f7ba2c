//go:build !linux && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly

package channels

import (
	"runtime/metrics"
	"time"
)

// processorTime is the Go runtime's estimate of how long processors have worked for
// this process. It moves with each garbage collection only.
func processorTime() time.Duration {
	s := [...]metrics.Sample{{Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(s[:])
	return time.Duration((s[0].Value.Float64() - s[1].Value.Float64()) * float64(time.Second))
}
