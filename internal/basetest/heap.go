package basetest

import "runtime"

// Heap is how many bytes are in use after a collection.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // the first one only sets the pools' buffers aside
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
