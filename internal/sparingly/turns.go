package sparingly

import (
	"sync"
	"time"
)

// most is how many things a Turns knows: clients may make them up.
const most = 16

// Turns are a Turn for each of several things, so that one does not silence another.
// While 16 things have had their turn, others wait until one of them may have it
// again. The zero value is ready. It may be used concurrently.
type Turns struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// Now reports whether it is a thing's turn, as [Turn.Now] does.
func (t *Turns) Now(thing string, every time.Duration) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, last := range t.last {
		if now.Sub(last) >= every {
			delete(t.last, name)
		}
	}
	if _, had := t.last[thing]; had || len(t.last) >= most {
		return false
	}
	if t.last == nil {
		t.last = map[string]time.Time{}
	}
	t.last[thing] = now
	return true
}
