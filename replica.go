package channels

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// Replica is one process of the app, as this one sees it. [Hub.Replicas] lists
// them.
type Replica struct {
	ID     string // see Options.ReplicaID
	Status ReplicaStatus
	// Reasons say why it is not green; never nil.
	//
	// Red:
	//   - "heartbeats missed": none for 10 s
	//   - "reports lost: store": the Store takes no heartbeats, so that nobody can tell by them
	//   - "canary lost: store", "canary lost: mesh": three in a row
	//
	// Yellow:
	//   - "heartbeat late", "report late: store": by 7 s
	//   - "canary late: store", "canary late: mesh": by more than 1 s; for the Store,
	//     a report also counts
	//   - "link down": to a peer that lives, for more than 9 s
	//   - "another store": the mesh hears it, but the Store does not know it.
	//     Beside store.Memory, where each replica has its own, only within a
	//     minute of a message in a channel with history
	//   - "same name": another living replica has the same id
	//   - "lagging": messages were missing within the last 10 s that the mesh
	//     had not reported as lost, while neither a replica nor the Store was silent
	//   - "dropping": messages were dropped within the last 10 s, for slow
	//     peers or slow subscribers (SlowKeepLatest does not count)
	//   - "draining"
	//   - "loaded": 80 % of MaxConnections or MaxQueuedBytes
	//   - "unknown": it is of a version that does not say
	Reasons []string
	Seen    time.Duration // how long ago its last heartbeat or canary came
	Started time.Time     // by its own clock
	Stats
	Draining bool
	Mesh     *ReplicaMesh // nil if it has none, or has not said

	// What it takes of its machine, and how quick it is. They are zero for a replica
	// of a version that does not say.
	Uptime         time.Duration // since Started, when these numbers were true
	Version        string        // of the program's main module, as its build says; empty if that says none
	GoVersion      string        // e.g. "go1.26.0"
	Memory         int64         // bytes of the system's memory that Go holds
	CPU            float64       // processors in use, over the last second
	Processors     int           // how many it may use at a time (GOMAXPROCS)
	MaxConnections int           // see Options
	LatencyP50     time.Duration // see Metrics.Latency; over the last second, 0 if nothing was sampled in it
	LatencyP99     time.Duration
	StoreTime      time.Duration // how long the Store took for its last canary
	StoreSeen      time.Duration // how long ago the Store last took something of it
}

// ReplicaStatus is a replica's health.
type ReplicaStatus string

const (
	ReplicaGreen  ReplicaStatus = "green"  // its heartbeats and canaries come in time
	ReplicaYellow ReplicaStatus = "yellow" // it works, but something is wrong: see Replica.Reasons
	ReplicaRed    ReplicaStatus = "red"    // its heartbeats or canaries are missing: count it as lost
)

// ReplicaMesh is how a replica sees its mesh. Addresses and errors are left
// out: whoever may see the list need not know the network.
type ReplicaMesh struct {
	Up      int           // peers
	Down    int           // peers
	Peers   []ReplicaPeer // up to 20, those that are down first; never nil
	Dropped int64
	Lost    int64 // each new link counts as one
	Refused int64
}

// ReplicaPeer is a link to another replica, or to a broker. See [mesh.Peer].
type ReplicaPeer struct {
	ID  string // empty for a broker, or if it is not known yet
	Up  bool
	RTT time.Duration // of the last heartbeat; 0 if none has come
}

// ReplicaID returns this replica's name: Options.ReplicaID, or what New chose for it.
func (h *Hub) ReplicaID() string { return h.opts.ReplicaID }

// OwnStore reports whether the Store is a [store.Memory], which no other replica can
// share. Then lists of channels and members have only what this replica holds.
func (h *Hub) OwnStore() bool { return h.store.memory }

// maxReplicaPeers bounds what each replica tells of its links with each heartbeat.
const maxReplicaPeers = 20

// self is this replica.
func (h *Hub) self() Replica {
	r, _ := h.verdict()
	r.ID, r.Started, r.Stats, r.Draining = h.opts.ReplicaID, h.started.Round(0).UTC(), h.Stats(), h.draining.Load()
	h.usage.fill(&r)
	r.Uptime, r.MaxConnections = time.Since(h.started), h.opts.MaxConnections
	if h.mesh != nil {
		r.Mesh = newReplicaMesh(h.mesh.Status())
	}
	return r
}

func newReplicaMesh(s mesh.Status) *ReplicaMesh {
	m := &ReplicaMesh{Peers: make([]ReplicaPeer, 0, min(len(s.Peers), maxReplicaPeers)), Dropped: s.Dropped, Lost: s.Lost, Refused: s.Refused}
	for _, up := range []bool{false, true} {
		for _, p := range s.Peers {
			if p.Up != up {
				continue
			}
			if up {
				m.Up++
			} else {
				m.Down++
			}
			if len(m.Peers) < maxReplicaPeers {
				m.Peers = append(m.Peers, ReplicaPeer{p.ID, p.Up, p.RTT})
			}
		}
	}
	return m
}

// overBroker reports whether the mesh goes over a broker. Replicas that share a
// Store need not share a mesh: those without one, or with another, answer no
// canary.
func (m *ReplicaMesh) overBroker() bool {
	return m != nil && slices.ContainsFunc(m.Peers, func(p ReplicaPeer) bool { return p.ID == "" && p.Up })
}

// replicaJSON is a Replica in heartbeats, in canaries and in GET /v1/nodes,
// where an id is called "node", and has to stay so for older replicas and
// clients.
type replicaJSON struct {
	ID      string        `json:"node"`
	Status  ReplicaStatus `json:"status"`
	Reasons []string      `json:"reasons"`
	Started time.Time     `json:"started"`
	Stats
	Draining bool             `json:"draining"`
	Mesh     *replicaMeshJSON `json:"mesh,omitempty"`
	Address  string           `json:"address,omitempty"` // in heartbeats, if the mesh is a Discoverer
	replicaUsageJSON
}

// replicaUsageJSON is left out of GET /v1/nodes: whoever may see the list need not
// know which version could be attacked, and how much more would be too much.
type replicaUsageJSON struct {
	Uptime         float64 `json:"uptime_ms,omitempty"`
	Version        string  `json:"version,omitempty"`
	GoVersion      string  `json:"go,omitempty"`
	Memory         int64   `json:"memory,omitempty"`
	CPU            float64 `json:"cpu,omitempty"`
	Processors     int     `json:"processors,omitempty"`
	MaxConnections int     `json:"max_connections,omitempty"`
	LatencyP50     float64 `json:"latency_p50_ms,omitempty"`
	LatencyP99     float64 `json:"latency_p99_ms,omitempty"`
	StoreTime      float64 `json:"store_ms,omitempty"`
	StoreSeen      float64 `json:"store_seen_ms,omitempty"`
}

type replicaMeshJSON struct {
	Up      int               `json:"up"`
	Down    int               `json:"down"`
	Peers   []replicaPeerJSON `json:"peers"`
	Dropped int64             `json:"dropped"`
	Lost    int64             `json:"lost"`
	Refused int64             `json:"refused"`
}

type replicaPeerJSON struct {
	ID  string  `json:"node"`
	Up  bool    `json:"up"`
	RTT float64 `json:"rtt_ms"`
}

// json returns the replica as it is sent.
func (r Replica) json() replicaJSON {
	j := replicaJSON{ID: r.ID, Status: r.Status, Reasons: r.Reasons, Started: r.Started, Stats: r.Stats, Draining: r.Draining}
	j.replicaUsageJSON = replicaUsageJSON{inMS(r.Uptime), r.Version, r.GoVersion, r.Memory, r.CPU, r.Processors, r.MaxConnections, inMS(r.LatencyP50), inMS(r.LatencyP99), inMS(r.StoreTime), inMS(r.StoreSeen)}
	if m := r.Mesh; m != nil {
		j.Mesh = &replicaMeshJSON{m.Up, m.Down, make([]replicaPeerJSON, len(m.Peers)), m.Dropped, m.Lost, m.Refused}
		for i, p := range m.Peers {
			j.Mesh.Peers[i] = replicaPeerJSON{p.ID, p.Up, inMS(p.RTT)}
		}
	}
	return j
}

// replica undoes json. Another replica may be faulty: numbers that cannot be are made
// such that they can be shown and sent on.
func (j replicaJSON) replica() Replica {
	if y := j.Started.Year(); y < 1 || y > 9999 { // JSON has no other years
		j.Started = time.Time{}
	}
	r := Replica{ID: j.ID, Status: j.Status, Reasons: j.Reasons, Started: j.Started, Stats: j.Stats, Draining: j.Draining,
		Uptime: ofMS(j.Uptime), Version: j.Version, GoVersion: j.GoVersion, Memory: max(0, j.Memory), CPU: min(max(0, j.CPU), maxProcessors), Processors: max(0, j.Processors), MaxConnections: max(0, j.MaxConnections),
		LatencyP50: ofMS(j.LatencyP50), LatencyP99: ofMS(j.LatencyP99), StoreTime: ofMS(j.StoreTime), StoreSeen: ofMS(j.StoreSeen)}
	if m := j.Mesh; m != nil {
		peers := m.Peers[:min(len(m.Peers), maxReplicaPeers)]
		r.Mesh = &ReplicaMesh{m.Up, m.Down, make([]ReplicaPeer, len(peers)), m.Dropped, m.Lost, m.Refused}
		for i, p := range peers {
			r.Mesh.Peers[i] = ReplicaPeer{p.ID, p.Up, ofMS(p.RTT)}
		}
	}
	return r
}

// maxProcessors is more than any replica uses.
const maxProcessors = 1e6

// inMS and ofMS turn durations into the milliseconds of JSON, and back.
func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ofMS takes a negative number for 0, and one that is too large for a hundred years.
func ofMS(ms float64) time.Duration {
	const years = 100 * 365 * 24 * time.Hour
	return time.Duration(math.Round(min(max(0, ms), inMS(years)) * float64(time.Millisecond)))
}

// heartbeatRecord is what this replica's heartbeat tells the Store.
func (h *Hub) heartbeatRecord() store.Replica {
	info := h.self().json()
	if h.discoverer != nil {
		info.Address = h.discoverer.Address()
	}
	b, _ := json.Marshal(info) // texts and numbers cannot fail
	return store.Replica{ID: h.opts.ReplicaID, Started: h.started, Info: b}
}
