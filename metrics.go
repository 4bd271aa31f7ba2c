package channels

import (
	"slices"
	"time"

	"github.com/channels-go/channels/internal/latency"
	"github.com/channels-go/channels/mesh"
)

// Metrics are the numbers of a hub in detail. Package metrics gives them to Prometheus,
// and docs/metrics.md explains them.
//
// Maps have all the names that can come up from the beginning, except for the codes of
// errors.
type Metrics struct {
	Stats
	Status         ReplicaStatus // this replica's, as [Hub.Replicas] has it
	Reasons        []string      // see Replica.Reasons
	Draining       bool
	MaxConnections int   // Options.MaxConnections
	MaxQueued      int64 // Options.MaxQueuedBytes

	Doors         map[string]DoorMetrics
	Subscriptions int // there are now, with those to patterns

	HandshakesRefused map[string]int64 // requests that wanted to stay, and connect commands, by the error's code
	RequestsRefused   map[string]int64 // other requests, by the error's code

	Superseded int64            // messages that SlowKeepLatest dropped; Stats.Dropped has them, too
	Resets     map[string]int64 // that subscribers got, by ResetError.Reason

	// A fill reads from the Store what all subscribers of a channel lack. Its outcome is
	// "repaired", "nothing" (nothing was missing) or "lost" (subscribers got a reset).
	Fills    map[string]int64
	Filled   int64 // messages that fills fetched
	FillTime Histogram

	// One subscriber that comes back, or was too slow, catches up.
	CaughtUp    int64 // messages that were read for such subscribers
	CatchUpTime Histogram

	Store    map[string]StoreCallMetrics // by the Store's method
	Canaries map[string]CanaryMetrics    // "store" and, if there is one, "mesh"

	Mesh        *mesh.Status // nil if there is none
	Received    int64        // messages, from the mesh
	Unpublished int64        // messages that the mesh did not take

	Watched map[string]ChannelMetrics // by the patterns of [Hub.WatchChannels]

	// Latency is how long messages took from the beginning of their publish, or from
	// their arrival from another replica, until they were written for the last of their
	// subscribers here. It has a sample: the first 64 messages of each second, and one in
	// 64 of the others.
	Latency Histogram
}

// DoorMetrics are about those who come by one door: "go" is the app's own code,
// "websocket" and "sse" are connections of one channel, "connection_websocket",
// "connection_sse" and "connection_http_stream" those of the client protocol. By "http"
// and "bridge" (see [Hub.Bridge]) messages come without a connection.
type DoorMetrics struct {
	Connections int   // there are now
	Connects    int64 // there were
	// Publishes are the messages that came by it, by outcome: "ok", "duplicate" (the
	// idempotency key was seen before), "cancelled" (the publisher's context ended), or
	// the code of the error.
	Publishes map[string]int64
}

// StoreCallMetrics are about one method of the Store.
type StoreCallMetrics struct {
	Calls  int64
	Errors int64     // without those that are the caller's: ErrKeyReused, a cancelled context
	Time   Histogram // of each call; of a store.Memory, one call in 16
}

// CanaryMetrics are about the messages by which the hub tests the Store or the mesh.
type CanaryMetrics struct {
	Sent      int64
	Lost      int64         // no answer came in time
	RoundTrip time.Duration // of the last one that came back; 0 if none has
}

// Metrics returns the hub's numbers at this moment. It asks neither the Store nor other
// replicas, and does not take longer if there are more channels.
func (h *Hub) Metrics() Metrics {
	c := &h.stats
	self, _ := h.verdict()
	m := Metrics{
		Stats: h.Stats(), Status: self.Status, Reasons: self.Reasons, Draining: h.draining.Load(),
		MaxConnections: h.opts.MaxConnections, MaxQueued: int64(h.opts.MaxQueuedBytes),
		Doors: make(map[string]DoorMetrics, numDoors), Subscriptions: int(c.subscriptions.Load()),
		HandshakesRefused: c.handshakes.read(), RequestsRefused: c.refusals.read(),
		Superseded: h.fan.Superseded.Load(),
		Resets:     c.resets.read(resetEpoch, resetTrimmed, resetNoHistory),
		Fills:      c.fills.read(fillRepaired, fillNothing, fillLost), Filled: c.filled.Load(), FillTime: histogramOf(&c.fillTime),
		CaughtUp: c.caughtUp.Load(), CatchUpTime: histogramOf(&c.catchUp),
		Store: make(map[string]StoreCallMetrics, storeMethods), Canaries: h.vitals.canaries(h.mesh != nil),
		Received: c.received.Load(), Unpublished: c.unpublished.Load(), Watched: h.channels.watched.metrics(), Latency: histogramOf(&h.fan.Latency),
	}
	open := h.clients.byDoor()
	for i, name := range doorNames {
		p := &c.publishes[i]
		d := DoorMetrics{Connections: open[i], Connects: c.connects[i].Load(), Publishes: p.refused.read()}
		d.Publishes[outcomeOK], d.Publishes[outcomeDuplicate] = p.ok.Load(), p.duplicate.Load()
		m.Doors[name] = d
	}
	for i, name := range storeMethodNames {
		s := &h.store.calls[i]
		m.Store[name] = StoreCallMetrics{Calls: s.n.Load(), Errors: s.failed.Load(), Time: histogramOf(&s.took)}
	}
	if h.mesh != nil {
		status := h.mesh.Status()
		m.Mesh = &status
	}
	return m
}

// A Histogram says how often something took how long.
type Histogram struct {
	Bounds []time.Duration // the upper ends of all buckets but the last, rising; shared, not to be changed
	Counts []uint64        // in each bucket
	Sum    time.Duration   // of all durations
}

func histogramOf(l *latency.Histogram) Histogram {
	counts, sum := l.Read()
	return Histogram{latency.Bounds(), counts, sum}
}

// Count returns how many durations it has.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Since returns what has come to h since it was earlier.
func (h Histogram) Since(earlier Histogram) Histogram {
	d := Histogram{h.Bounds, slices.Clone(h.Counts), h.Sum - earlier.Sum}
	for i, n := range earlier.Counts {
		d.Counts[i] -= n
	}
	return d
}

// Quantile returns the duration below which the part q (0 to 1) of all lies. Within a
// bucket it takes them to be spread evenly. For what took longer than the last bound, it
// returns that; without any durations, 0.
func (h Histogram) Quantile(q float64) time.Duration {
	rank := q * float64(h.Count())
	below := 0.0
	for i, c := range h.Counts {
		n := float64(c)
		if n == 0 || below+n < rank {
			below += n
			continue
		}
		if i == len(h.Bounds) {
			break
		}
		from := time.Duration(0)
		if i > 0 {
			from = h.Bounds[i-1]
		}
		return from + time.Duration((rank-below)/n*float64(h.Bounds[i]-from))
	}
	if len(h.Bounds) == 0 || below == 0 && h.Count() == 0 {
		return 0
	}
	return h.Bounds[len(h.Bounds)-1]
}
