package channels

// rate counts events in a sliding window of 60 seconds, in steps of one.
// Its memory is constant, and it takes no time while nothing happens. It is not
// safe for concurrent use.
type rate struct {
	buckets [60]uint32
	last    int64 // the second of the newest bucket
	total   int
}

// add counts n events at a time in seconds. The clock is never set back.
func (r *rate) add(now int64, n int) {
	r.forward(now)
	r.buckets[r.last%60] += uint32(n)
	r.total += n
}

// sum returns how many events there were in the 60 seconds up to now.
func (r *rate) sum(now int64) int {
	r.forward(now)
	return r.total
}

func (r *rate) forward(now int64) {
	if now-r.last >= 60 {
		*r = rate{last: now}
		return
	}
	for r.last < now {
		r.last++
		b := &r.buckets[r.last%60]
		r.total -= int(*b)
		*b = 0
	}
}
