//go:build !linux || portable

package fanout

// wakeAt does nothing where no socket rests.
func wakeAt(uintptr, int) {}
