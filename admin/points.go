package admin

import (
	"math"
	"sort"

	"github.com/channels-go/channels"
)

// ringSize is how many points are kept: one a second for 15 minutes.
const ringSize = 15 * 60

// A point is what the replicas did in one second, except those whose numbers are old.
// The rates are NaN if no replica's is known, and the latencies are 0 if nothing was
// delivered.
type point struct {
	second                                  int64 // Unix time
	replicas, green                         int
	connections                             int
	requests, publishes, deliveries, queued float64
	p50, p99                                float64 // of the slowest replica, in milliseconds
}

// point sums up a view.
func (v *view) point() point {
	p := point{second: v.at.Unix(), requests: math.NaN(), publishes: math.NaN(), deliveries: math.NaN()}
	for _, r := range v.replicas {
		p.replicas++
		if r.Status == channels.ReplicaGreen {
			p.green++
		}
		if r.old {
			continue
		}
		p.connections += r.Connections
		p.queued += float64(r.Queued)
		p.p50 = max(p.p50, milliseconds(r.LatencyP50))
		p.p99 = max(p.p99, milliseconds(r.LatencyP99))
		if !r.known {
			continue
		}
		p.requests = plus(p.requests, r.perSecond.requests)
		p.publishes = plus(p.publishes, r.perSecond.publishes)
		p.deliveries = plus(p.deliveries, r.perSecond.deliveries)
	}
	return p
}

// plus is the sum of a number that may be unknown and one that is known.
func plus(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return a + b
}

// A ring keeps the last points, in the order of their seconds.
type ring struct {
	points [ringSize]point
	next   int // where the next one goes
	n      int // how many there are
}

// add adds a point. A second one of the same second, or one of a clock that was set
// back, replaces what it repeats.
func (r *ring) add(p point) {
	for r.n > 0 {
		last := (r.next + ringSize - 1) % ringSize
		if r.points[last].second < p.second {
			break
		}
		r.next = last
		r.n--
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % ringSize
	r.n = min(r.n+1, ringSize)
}

// since returns the points after a second, oldest first. The caller owns them.
func (r *ring) since(second int64) []point {
	at := func(i int) *point { return &r.points[(r.next-r.n+i+ringSize)%ringSize] } // the ith one
	first := sort.Search(r.n, func(i int) bool { return at(i).second > second })
	all := make([]point, r.n-first)
	for i := range all {
		all[i] = *at(first + i)
	}
	return all
}
