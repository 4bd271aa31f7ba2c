package channels

import "sync/atomic"

// counters are the hub's totals since it was started.
type counters struct {
	published, slow, connects, deflated atomic.Int64
	// dropped and superseded are messages that slow subscribers did not get;
	// the latter in favour of a newer one, as SlowKeepLatest wants it.
	dropped, superseded atomic.Int64

	badPackets atomic.Int64 // that the mesh has brought

	pressed atomic.Bool // a queue is more than half full
}

// Stats are a hub's totals since New, and what it holds now.
type Stats struct {
	Connections int   `json:"connections"` // WebSocket, server-sent events, and Go subscribers
	Channels    int   `json:"channels"`    // on this replica
	Connects    int64 `json:"connects"`
	Published   int64 `json:"published"` // through this replica
	Dropped     int64 `json:"dropped"`   // messages, by SlowDropOldest and SlowKeepLatest
	SlowClosed  int64 `json:"slow_closed"`
	Queued      int64 `json:"queued"`                // bytes that wait in all queues; a message in many of them counts once
	Deflated    int64 `json:"deflated"`              // messages, each once for all its receivers
	BadPackets  int64 `json:"bad_packets,omitempty"` // from other replicas: what cannot be a message is dropped
}

// Stats returns the hub's numbers at this moment.
func (h *Hub) Stats() Stats {
	return Stats{
		Connections: h.clients.count(),
		Channels:    int(h.channels.n.Load()),
		Connects:    h.stats.connects.Load(),
		Published:   h.stats.published.Load(),
		Dropped:     h.stats.dropped.Load() + h.stats.superseded.Load(),
		SlowClosed:  h.stats.slow.Load(),
		Queued:      h.queued.sum(),
		Deflated:    h.stats.deflated.Load(),
		BadPackets:  h.stats.badPackets.Load(),
	}
}
