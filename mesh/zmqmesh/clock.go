package zmqmesh

import (
	"sync/atomic"
	"time"
)

// sparingly is for what can happen again and again, and is to be logged once in
// a while: who asks now and is told yes does it. It keeps times with their
// monotonic reading, as a clock that is set back would silence it.
type sparingly struct{ last atomic.Pointer[time.Time] }

// now tells whether the last time was so long ago.
func (s *sparingly) now(every time.Duration) bool {
	now, last := time.Now(), s.last.Load()
	return (last == nil || now.Sub(*last) >= every) && s.last.CompareAndSwap(last, &now)
}
