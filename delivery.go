package channels

import (
	"runtime"
	"sync/atomic"
)

// delivery is what messages go through on this replica, from the table of
// channels to the writers that empty the outboxes. Its parts have locks of
// their own: see Hub for their order.
type delivery struct {
	channels channelTable
	clients  clientTable
	writers  []*writer
	spread   atomic.Uint32 // deals connections to writers and counters

	queued    queuedBytes  // what waits in all outboxes
	answering atomic.Int64 // how much of that are long answers over HTTP
	heartbeat *frame       // for clients that want to see one
	taps      taps         // what a Bridge has of all messages
	losses    losses       // what the mesh may have lost
	stats     counters
}

// startWriters starts a writer for each processor. Shutdown stops them.
func (h *Hub) startWriters() {
	h.writers = make([]*writer, runtime.GOMAXPROCS(0))
	for i := range h.writers {
		h.writers[i] = newWriter(h)
		h.loops.Run(h.writers[i].run)
	}
}
