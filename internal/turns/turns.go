// Package turns keeps a burst of work from holding up everything else.
package turns

import "runtime"

// Turns are a line in which goroutines wait that became ready all at once, such as
// those of a thousand clients that come back. Go runs goroutines in the order in which
// they became ready, so that whatever comes next would wait for all of them. From the
// line, one for each processor starts at a time, and everything else that is ready runs
// before the next one does.
type Turns chan struct{}

// New returns Turns for the processors that the program may use now.
func New() Turns { return make(Turns, runtime.GOMAXPROCS(0)) }

// Take waits for the caller's turn. It may be called concurrently.
func (t Turns) Take() {
	t <- struct{}{}
	runtime.Gosched() // the next one starts at once, ahead of what is ready
	<-t
}
