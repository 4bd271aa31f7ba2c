package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
)

// A family is one metric, with all its series.
type family struct {
	desc *prometheus.Desc
	read func(m *channels.Metrics, to sink)
}

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("channels_"+name, help, labels, nil)
}

// families are all metrics but those of Options.Channels. docs/metrics.md has the same.
var families = []family{
	// This replica.
	{newDesc("status", "1 for the status that this replica has, and 0 for the others.", "status"),
		func(m *channels.Metrics, to sink) {
			for _, s := range []channels.ReplicaStatus{channels.ReplicaGreen, channels.ReplicaYellow, channels.ReplicaRed} {
				to.gauge(truth(m.Status == s), string(s))
			}
		}},
	{newDesc("status_reason", "1 for each reason why this replica is not green.", "reason"),
		func(m *channels.Metrics, to sink) {
			for _, r := range m.Reasons {
				to.gauge(1, r)
			}
		}},
	{newDesc("draining", "1 while this replica drains, and 0 otherwise."),
		func(m *channels.Metrics, to sink) { to.gauge(truth(m.Draining)) }},

	// Who is here.
	{newDesc("connections", "Connections and Go subscribers now, by the door that they came by.", "door"),
		func(m *channels.Metrics, to sink) {
			for door, d := range m.Doors {
				to.gauge(float64(d.Connections), door)
			}
		}},
	{newDesc("connections_limit", "Options.MaxConnections."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.MaxConnections)) }},
	{newDesc("connects_total", "Connections and Go subscribers that were let in, by the door that they came by.", "door"),
		func(m *channels.Metrics, to sink) {
			for door, d := range m.Doors {
				to.counter(d.Connects, door)
			}
		}},
	{newDesc("handshakes_refused_total", "Connections that were refused, and connect commands, by the code of the error.", "code"),
		func(m *channels.Metrics, to sink) { to.counters(m.HandshakesRefused) }},
	{newDesc("subscriptions", "Subscriptions to channels and patterns now."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.Subscriptions)) }},
	{newDesc("channels", "Channels that this replica holds."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.Channels)) }},
	{newDesc("patterns", "Patterns that have subscribers on this replica."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.Patterns)) }},
	{newDesc("http_requests_total", "HTTP requests, with those that became connections."),
		func(m *channels.Metrics, to sink) { to.counter(m.Requests) }},
	{newDesc("http_requests_refused_total", "HTTP requests for anything but a connection that were refused, by the code of the error.", "code"),
		func(m *channels.Metrics, to sink) { to.counters(m.RequestsRefused) }},

	// Messages.
	{newDesc("publishes_total", "Messages that came to this replica from publishers, by door and outcome: ok, duplicate, cancelled, or the code of the error.", "door", "outcome"),
		func(m *channels.Metrics, to sink) {
			for door, d := range m.Doors {
				for outcome, n := range d.Publishes {
					to.counter(n, door, outcome)
				}
			}
		}},
	{newDesc("deliveries_total", "Messages that were queued for subscribers of this replica, once for each."),
		func(m *channels.Metrics, to sink) { to.counter(m.Delivered) }},
	{newDesc("delivery_duration_seconds", "Time from a publish, or from the arrival of another replica's message, to its last write here. A sample of the messages."),
		func(m *channels.Metrics, to sink) { to.histogram(m.Latency) }},
	{newDesc("written_bytes_total", "Bytes that were written to connections, with framing, before TLS."),
		func(m *channels.Metrics, to sink) { to.counter(m.Written) }},
	{newDesc("deflated_messages_total", "Messages that were compressed, each once for all its receivers."),
		func(m *channels.Metrics, to sink) { to.counter(m.Deflated) }},
	{newDesc("queued_bytes", "Bytes that wait to be written. A message in many queues counts once."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.Queued)) }},
	{newDesc("queued_bytes_limit", "Options.MaxQueuedBytes."),
		func(m *channels.Metrics, to sink) { to.gauge(float64(m.MaxQueued)) }},
	{newDesc("slow_subscribers_closed_total", "Subscribers that were closed because their queues were full."),
		func(m *channels.Metrics, to sink) { to.counter(m.SlowClosed) }},
	{newDesc("dropped_messages_total", "Messages that were dropped because a subscriber's queue was full, by the channel's policy.", "policy"),
		func(m *channels.Metrics, to sink) {
			to.counter(m.Dropped-m.Superseded, "drop_oldest")
			to.counter(m.Superseded, "keep_latest")
		}},

	// What was missed.
	{newDesc("resets_total", "Resets that subscribers got because messages are lost to them, by reason.", "reason"),
		func(m *channels.Metrics, to sink) { to.counters(m.Resets) }},
	{newDesc("fills_total", "How often a channel looked for missing messages in the Store, by outcome: repaired, nothing (none was missing) or lost (subscribers got a reset).", "outcome"),
		func(m *channels.Metrics, to sink) { to.counters(m.Fills) }},
	{newDesc("filled_messages_total", "Messages that channels were missing and that the Store had."),
		func(m *channels.Metrics, to sink) { to.counter(m.Filled) }},
	{newDesc("fill_duration_seconds", "Time that a channel took to look for missing messages."),
		func(m *channels.Metrics, to sink) { to.histogram(m.FillTime) }},
	{newDesc("caught_up_messages_total", "Messages that were read for subscribers that had missed them."),
		func(m *channels.Metrics, to sink) { to.counter(m.CaughtUp) }},
	{newDesc("catch_up_duration_seconds", "Time that a subscriber took to get what it had missed."),
		func(m *channels.Metrics, to sink) { to.histogram(m.CatchUpTime) }},

	// The Store.
	{newDesc("store_calls_total", "Calls of the Store, by method.", "call"),
		func(m *channels.Metrics, to sink) {
			for call, s := range m.Store {
				to.counter(s.Calls, call)
			}
		}},
	{newDesc("store_errors_total", "Calls of the Store that failed, by method.", "call"),
		func(m *channels.Metrics, to sink) {
			for call, s := range m.Store {
				to.counter(s.Errors, call)
			}
		}},
	{newDesc("store_call_duration_seconds", "Time that calls of the Store took, by method. Of a store.Memory, a sample.", "call"),
		func(m *channels.Metrics, to sink) {
			for call, s := range m.Store {
				to.histogram(s.Time, call)
			}
		}},

	// Canaries.
	{newDesc("canaries_sent_total", "Messages by which this replica tests the Store and the mesh.", "way"),
		canaries(func(c channels.CanaryMetrics, way string, to sink) { to.counter(c.Sent, way) })},
	{newDesc("canaries_lost_total", "Canaries that did not come back in time.", "way"),
		canaries(func(c channels.CanaryMetrics, way string, to sink) { to.counter(c.Lost, way) })},
	{newDesc("canary_round_trip_seconds", "Time that the last canary took that came back.", "way"),
		canaries(func(c channels.CanaryMetrics, way string, to sink) { to.gauge(c.RoundTrip.Seconds(), way) })},

	// The mesh.
	{newDesc("mesh_peers", "Peers of this replica in the mesh, by whether messages arrive from them: up or down.", "state"),
		ofMesh(func(s *mesh.Status, to sink) {
			up := 0
			for _, p := range s.Peers {
				if p.Up {
					up++
				}
			}
			to.gauge(float64(up), "up")
			to.gauge(float64(len(s.Peers)-up), "down")
		})},
	{newDesc("mesh_round_trip_seconds", "The longest time that a heartbeat took to a peer that is up, and back."),
		ofMesh(func(s *mesh.Status, to sink) {
			longest := 0.0
			for _, p := range s.Peers {
				if p.Up {
					longest = max(longest, p.RTT.Seconds())
				}
			}
			to.gauge(longest)
		})},
	{newDesc("mesh_queued_bytes", "Bytes that wait to be sent to peers."),
		ofMesh(func(s *mesh.Status, to sink) {
			queued := 0
			for _, p := range s.Peers {
				queued += p.Queued
			}
			to.gauge(float64(queued))
		})},
	{newDesc("mesh_dropped_packets_total", "Packets that were not sent to a peer because it was too slow."),
		ofMesh(func(s *mesh.Status, to sink) { to.counter(s.Dropped) })},
	{newDesc("mesh_losses_total", "How often the mesh said that packets may have been lost. Each new link counts as one."),
		ofMesh(func(s *mesh.Status, to sink) { to.counter(s.Lost) })},
	{newDesc("mesh_refused_connections_total", "Connections that the mesh refused: a wrong key, a protocol error, too many at once."),
		ofMesh(func(s *mesh.Status, to sink) { to.counter(s.Refused) })},
	{newDesc("mesh_received_messages_total", "Messages that other replicas have published."),
		ofHubsMesh(func(m *channels.Metrics, to sink) { to.counter(m.Received) })},
	{newDesc("mesh_unsent_messages_total", "Messages that the mesh did not take."),
		ofHubsMesh(func(m *channels.Metrics, to sink) { to.counter(m.Unpublished) })},
	{newDesc("mesh_bad_packets_total", "Packets of other replicas that were dropped because they cannot be messages."),
		ofHubsMesh(func(m *channels.Metrics, to sink) { to.counter(m.BadPackets) })},
}

// A patternFamily is one metric of Options.Channels.
type patternFamily struct {
	desc *prometheus.Desc
	read func(m *channels.ChannelMetrics, pattern string, to sink)
}

var patternFamilies = []patternFamily{
	{newDesc("pattern_channels", "Channels of this replica whose names the pattern matches.", "pattern"),
		func(m *channels.ChannelMetrics, p string, to sink) { to.gauge(float64(m.Channels), p) }},
	{newDesc("pattern_subscriptions", "Subscriptions to these channels now.", "pattern"),
		func(m *channels.ChannelMetrics, p string, to sink) { to.gauge(float64(m.Subscriptions), p) }},
	{newDesc("pattern_published_messages_total", "Messages that were published on these channels through this replica.", "pattern"),
		func(m *channels.ChannelMetrics, p string, to sink) { to.counter(m.Published, p) }},
	{newDesc("pattern_deliveries_total", "Messages that were queued for subscribers of these channels, once for each.", "pattern"),
		func(m *channels.ChannelMetrics, p string, to sink) { to.counter(m.Delivered, p) }},
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// canaries reads the numbers of each way that has canaries.
func canaries(read func(c channels.CanaryMetrics, way string, to sink)) func(*channels.Metrics, sink) {
	return func(m *channels.Metrics, to sink) {
		for way, c := range m.Canaries {
			read(c, way, to)
		}
	}
}

// ofMesh reads the mesh's numbers, if there is a mesh.
func ofMesh(read func(s *mesh.Status, to sink)) func(*channels.Metrics, sink) {
	return func(m *channels.Metrics, to sink) {
		if m.Mesh != nil {
			read(m.Mesh, to)
		}
	}
}

// ofHubsMesh reads the hub's own numbers about the mesh, if there is one.
func ofHubsMesh(read func(m *channels.Metrics, to sink)) func(*channels.Metrics, sink) {
	return func(m *channels.Metrics, to sink) {
		if m.Mesh != nil {
			read(m, to)
		}
	}
}
