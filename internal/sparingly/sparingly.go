// Package sparingly is for what can happen again and again, and is to be logged
// once in a while.
package sparingly

import (
	"sync/atomic"
	"time"
)

// A Turn is what many want to log: who asks and is told yes does it. The zero
// Turn says yes to the first one. It may be used by many goroutines at once.
//
// It keeps times with their monotonic reading, as a clock that is set back would
// silence it.
type Turn struct{ last atomic.Pointer[time.Time] }

// Now tells whether the last time was so long ago.
func (t *Turn) Now(every time.Duration) bool {
	now, last := time.Now(), t.last.Load()
	return (last == nil || now.Sub(*last) >= every) && t.last.CompareAndSwap(last, &now)
}

// Reset has Now say yes again at once. It returns whether Now has said yes
// since the last Reset.
func (t *Turn) Reset() bool { return t.last.Swap(nil) != nil }
