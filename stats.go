package channels

import (
	"sync/atomic"

	"github.com/channels-go/channels/internal/latency"
)

// counters are the hub's totals since it was started. The fan-out, the Store's calls and
// the canaries have their own.
type counters struct {
	published     atomic.Int64 // messages that were handed on here
	subscriptions atomic.Int64 // there are now
	connects      [numDoors]atomic.Int64
	publishes     [numDoors]publishCounts

	requests   atomic.Int64
	handshakes tally // that were refused, by the error's code
	refusals   tally // of other requests, by the error's code

	resets   tally // by reason
	fills    tally // by outcome
	filled   atomic.Int64
	fillTime latency.Histogram // of one fill
	caughtUp atomic.Int64
	catchUp  latency.Histogram // of one subscriber

	received    atomic.Int64 // messages, from the mesh
	badPackets  atomic.Int64 // from the mesh
	unpublished atomic.Int64 // messages that the mesh did not take
}

// Stats are a hub's totals since New, and what it holds now. [Hub.Metrics] has more.
type Stats struct {
	Connections int   `json:"connections"`        // WebSockets, event streams and Go subscribers
	Channels    int   `json:"channels"`           // on this replica
	Patterns    int   `json:"patterns,omitempty"` // that have subscribers on this replica
	Connects    int64 `json:"connects"`
	Requests    int64 `json:"requests,omitempty"`    // HTTP requests, with those that became connections
	Published   int64 `json:"published"`             // through this replica
	Delivered   int64 `json:"delivered,omitempty"`   // messages that were queued for a subscriber, once for each
	Written     int64 `json:"written,omitempty"`     // bytes that went to connections, with framing, pings and answers, before TLS
	Dropped     int64 `json:"dropped"`               // messages, by SlowDropOldest and SlowKeepLatest
	SlowClosed  int64 `json:"slow_closed"`           // subscribers, by SlowClose
	Queued      int64 `json:"queued"`                // bytes in all queues; a message in many queues counts once
	Deflated    int64 `json:"deflated"`              // messages that were deflated, each once for all receivers
	BadPackets  int64 `json:"bad_packets,omitempty"` // packets from other replicas that were dropped because they cannot be messages
}

// Stats returns the hub's numbers at this moment.
func (h *Hub) Stats() Stats {
	s := Stats{
		Connections: h.clients.count(),
		Channels:    int(h.channels.n.Load()),
		Patterns:    h.feeds.count(),
		Requests:    h.stats.requests.Load(),
		Published:   h.stats.published.Load(),
		Delivered:   h.fan.Delivered.Load(),
		Written:     h.fan.Written.Load(),
		Dropped:     h.fan.Dropped.Load() + h.fan.Superseded.Load(),
		SlowClosed:  h.fan.Slow.Load(),
		Queued:      h.fan.Queued(),
		Deflated:    h.fan.Deflated.Load(),
		BadPackets:  h.stats.badPackets.Load(),
	}
	for i := range h.stats.connects {
		s.Connects += h.stats.connects[i].Load()
	}
	return s
}
