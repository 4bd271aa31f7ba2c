// Package bell wakes a goroutine that waits for something to do.
package bell

// A Bell holds one ring for the goroutine that receives from it. Several rings
// before it does so count as one.
type Bell chan struct{}

// New returns a Bell that nobody has rung.
func New() Bell { return make(Bell, 1) }

// Ring never waits. It may be called concurrently.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
