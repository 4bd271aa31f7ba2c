package channels

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// usage is what this process takes of its machine. Only tick measures it.
type usage struct {
	last atomic.Pointer[used] // nil in the first second

	latency Histogram     // when tick last asked, as spent
	spent   time.Duration // of all processors together, when tick last asked
	at      time.Time     // when that was
}

// used is what was measured in one second.
type used struct {
	memory   int64
	cpu      float64       // processors
	p50, p99 time.Duration // of what was sampled; 0 if nothing was
}

// measure is called once a second, so that CPU is a mean over a second, and the
// latencies are those of a second.
func (u *usage) measure(latency Histogram) {
	lately := latency.Since(u.latency)
	u.latency = latency
	m := used{p50: lately.Quantile(0.5), p99: lately.Quantile(0.99)}

	spent, now := processorTime(), time.Now()
	if elapsed := now.Sub(u.at); !u.at.IsZero() && elapsed > 0 {
		m.cpu = max(0, float64(spent-u.spent)/float64(elapsed))
	}
	u.spent, u.at = spent, now
	held := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(held[:])
	m.memory = int64(held[0].Value.Uint64() - held[1].Value.Uint64())
	u.last.Store(&m)
}

// fill sets what a Replica says of its process.
func (u *usage) fill(r *Replica) {
	r.Version, r.GoVersion, r.Processors = programVersion, runtime.Version(), runtime.GOMAXPROCS(0)
	if m := u.last.Load(); m != nil {
		r.Memory, r.CPU, r.LatencyP50, r.LatencyP99 = m.memory, m.cpu, m.p50, m.p99
	}
}

// programVersion is the version of the program's main module, or "".
var programVersion = func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "(devel)" {
		return ""
	}
	return info.Main.Version
}()
