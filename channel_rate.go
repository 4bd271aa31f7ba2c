package channels

import "math"

// rate counts events in a sliding window of 60 seconds, in steps of one.
// Its memory is constant, and it takes no time while nothing happens. It is not
// safe for concurrent use.
type rate struct {
	few   [60]uint8   // the events of each second, near the channel's other numbers
	last  uint32      // the newest second
	many  *[60]uint32 // instead of few, since a second had more than few can tell
	total int
}

// add counts an event, at a time in seconds. The clock is never set back.
func (r *rate) add(now int64) {
	r.forward(now)
	r.total++
	i := r.last % 60
	if r.many == nil {
		if r.few[i] < math.MaxUint8 {
			r.few[i]++
			return
		}
		r.many = new([60]uint32)
		for j, n := range r.few {
			r.many[j] = uint32(n)
		}
		r.few = [60]uint8{}
	}
	r.many[i]++
}

// sum returns how many events there were in the 60 seconds up to now.
func (r *rate) sum(now int64) int {
	r.forward(now)
	return r.total
}

func (r *rate) forward(now int64) {
	if now-int64(r.last) >= 60 {
		*r = rate{last: uint32(now)}
		return
	}
	for int64(r.last) < now {
		r.last++
		i := r.last % 60
		if r.many != nil {
			r.total -= int(r.many[i])
			r.many[i] = 0
		} else {
			r.total -= int(r.few[i])
			r.few[i] = 0
		}
	}
	if r.total == 0 {
		r.many = nil
	}
}
