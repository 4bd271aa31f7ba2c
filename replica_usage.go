package channels

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// usage is what this process takes of its machine. Only tick measures it.
type usage struct {
	memory atomic.Int64
	cpu    atomic.Uint64 // the bits of a float64: processors
	// Of what was sampled in the last second; 0 if nothing was.
	p50, p99 atomic.Int64

	latency Histogram     // when tick last asked, as spent
	spent   time.Duration // of all processors together, when tick last asked
	at      time.Time     // when that was
}

// measure is called once a second, so that CPU is a mean over a second, and the
// latencies are those of a second.
func (u *usage) measure(latency Histogram) {
	lately := latency.Since(u.latency)
	u.latency = latency
	u.p50.Store(int64(lately.Quantile(0.5)))
	u.p99.Store(int64(lately.Quantile(0.99)))

	spent, now := processorTime(), time.Now()
	if elapsed := now.Sub(u.at); !u.at.IsZero() && elapsed > 0 {
		u.cpu.Store(math.Float64bits(max(0, float64(spent-u.spent)/float64(elapsed))))
	}
	u.spent, u.at = spent, now
	held := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(held[:])
	u.memory.Store(int64(held[0].Value.Uint64() - held[1].Value.Uint64()))
}

// fill sets what a Replica says of its process.
func (u *usage) fill(r *Replica) {
	r.Version, r.GoVersion = programVersion, runtime.Version()
	r.Memory, r.CPU, r.Processors = u.memory.Load(), math.Float64frombits(u.cpu.Load()), runtime.GOMAXPROCS(0)
	r.LatencyP50, r.LatencyP99 = time.Duration(u.p50.Load()), time.Duration(u.p99.Load())
}

// programVersion is the version of the program's main module, or "".
var programVersion = func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "(devel)" {
		return ""
	}
	return info.Main.Version
}()
