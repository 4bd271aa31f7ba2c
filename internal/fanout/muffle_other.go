//go:build !linux || portable

package fanout

// Where no socket rests, none is muffled.

func muffles() bool { return false }

func wakeAt(uintptr, int) {}
