package channels

import "sync/atomic"

// counters are the hub's totals since it was started. The fan-out has its own.
type counters struct {
	published, connects atomic.Int64
	badPackets          atomic.Int64 // from the mesh
}

// Stats are a hub's totals since New, and what it holds now.
type Stats struct {
	Connections int   `json:"connections"`        // WebSockets, event streams and Go subscribers
	Channels    int   `json:"channels"`           // on this replica
	Patterns    int   `json:"patterns,omitempty"` // that have subscribers on this replica
	Connects    int64 `json:"connects"`
	Published   int64 `json:"published"` // through this replica
	Dropped     int64 `json:"dropped"`   // messages, by SlowDropOldest and SlowKeepLatest
	SlowClosed  int64 `json:"slow_closed"`
	Queued      int64 `json:"queued"`                // bytes in all queues; a message in many queues counts once
	Deflated    int64 `json:"deflated"`              // messages that were deflated, each once for all receivers
	BadPackets  int64 `json:"bad_packets,omitempty"` // packets from other replicas that were dropped because they cannot be messages
}

// Stats returns the hub's numbers at this moment.
func (h *Hub) Stats() Stats {
	return Stats{
		Connections: h.clients.count(),
		Channels:    int(h.channels.n.Load()),
		Patterns:    h.feeds.count(),
		Connects:    h.stats.connects.Load(),
		Published:   h.stats.published.Load(),
		Dropped:     h.fan.Dropped.Load() + h.fan.Superseded.Load(),
		SlowClosed:  h.fan.Slow.Load(),
		Queued:      h.fan.Queued(),
		Deflated:    h.fan.Deflated.Load(),
		BadPackets:  h.stats.badPackets.Load(),
	}
}
