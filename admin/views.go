package admin

import "sync"

// views counts the live views of this replica by channel. Each is a subscriber of the
// hub, but nobody that an operator asks about.
type views struct {
	mu sync.Mutex // guards the field below
	of map[string]int
}

func (v *views) add(channel string, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = map[string]int{}
	}
	if v.of[channel] += n; v.of[channel] == 0 {
		delete(v.of, channel)
	}
}

// without is a number of subscribers of a channel without its live views. They may have
// come after it was counted.
func (v *views) without(channel string, subscribers int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return max(0, subscribers-v.of[channel])
}
