// Package sparingly limits how often a recurring event is logged.
package sparingly

import (
	"sync/atomic"
	"time"
)

// A Turn decides which of many callers logs an event. The zero value lets the
// first one log. It may be used concurrently.
//
// It keeps times with their monotonic reading, since setting the clock back
// would silence it otherwise.
type Turn struct{ last atomic.Pointer[time.Time] }

// Now reports whether the last true result was at least every ago.
func (t *Turn) Now(every time.Duration) bool {
	now, last := time.Now(), t.last.Load()
	return (last == nil || now.Sub(*last) >= every) && t.last.CompareAndSwap(last, &now)
}

// Reset has Now say yes again at once. It reports whether Now has said yes
// since the last Reset.
func (t *Turn) Reset() bool { return t.last.Swap(nil) != nil }
