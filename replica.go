package channels

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// Node is one replica.
type Node struct {
	ID     string     `json:"node"`
	Status NodeStatus `json:"status"`
	// Reasons say why it is not green; never nil. Red: "heartbeats missed" (for
	// 10 s), "reports lost: store" (the Store takes no heartbeats, so that nobody
	// can tell by them), "canary lost: store", "canary lost: mesh" (three in a
	// row). Yellow: "heartbeat late", "report late: store" (7 s), "canary late:
	// store", "canary late: mesh" (by more than 1 s), "link down" (to a peer that
	// lives, for more than 9 s), "another store" (the mesh hears it and the Store
	// does not know it; beside store.Memory, where each has its own, only within a
	// minute of a message in a channel with history), "same name" (as another living
	// replica), "lagging"
	// (messages were missing of which the mesh did not say that they are lost) and
	// "dropping" (of messages, for slow subscribers, not counting SlowKeepLatest,
	// or for slow peers) within the last 10 s, "draining", "loaded" (80 % of
	// MaxConnections or MaxQueuedBytes), "unknown" (of a version that says less).
	Reasons []string      `json:"reasons"`
	Seen    time.Duration `json:"-"`       // how long ago its last heartbeat or canary came; JSON has it as seen_ms
	Started time.Time     `json:"started"` // by its own clock
	Stats
	Draining bool      `json:"draining"`
	Mesh     *NodeMesh `json:"mesh,omitempty"` // nil where it has none, or is known from the mesh alone
}

// NodeMesh is how a replica sees its mesh. Addresses and errors are not part
// of it: who may see the list need not know the network.
type NodeMesh struct {
	Up      int        `json:"up"`    // peers
	Down    int        `json:"down"`  // peers
	Peers   []NodePeer `json:"peers"` // up to 20, those that are down first; never nil
	Dropped int64      `json:"dropped"`
	Lost    int64      `json:"lost"` // each new link counts one
	Refused int64      `json:"refused"`
}

// NodePeer is a link to another replica, or to a broker. See [mesh.Peer].
type NodePeer struct {
	ID  string  `json:"node"` // empty for a broker, or where it is not known yet
	Up  bool    `json:"up"`
	RTT float64 `json:"rtt_ms"` // of the last heartbeat, in milliseconds; 0 where none has come
}

// overBroker returns whether it goes over a broker. Replicas that share a Store
// need not share a mesh: those without one, or with another, answer nothing.
func (m *NodeMesh) overBroker() bool {
	return m != nil && slices.ContainsFunc(m.Peers, func(p NodePeer) bool { return p.ID == "" && p.Up })
}

// seen is the replica after so much silence. It tells nothing of the replica
// where this one is blind: what it would be heard by fails.
func (n Node) seen(silent time.Duration, blind bool) Node {
	n.Seen = max(0, silent)
	v := verdict{status: n.Status, reasons: slices.Clone(n.Reasons)}
	switch {
	case blind && silent > deadAfter:
		v = verdict{NodeRed, []string{reasonUnreported}}
	case silent > deadAfter:
		v = verdict{NodeRed, []string{reasonMissed}} // what it said of itself is past
	case n.Status != NodeGreen && n.Status != NodeYellow && n.Status != NodeRed:
		v = verdict{NodeYellow, []string{"unknown"}}
	case blind:
		v.say(NodeYellow, reasonUnsure)
	case silent > lateAfter:
		v.say(NodeYellow, reasonLate)
	}
	n.Status, n.Reasons = v.status, v.reasons
	if n.Reasons == nil {
		n.Reasons = []string{}
	}
	return n
}

// maxNodePeers bounds what each replica tells of its links with each heartbeat.
const maxNodePeers = 20

// self is this replica.
func (h *Hub) self() *Node {
	v, _ := h.verdict()
	n := &Node{ID: h.opts.Node, Status: v.status, Reasons: v.reasons, Started: h.started.Round(0).UTC(), Stats: h.Stats(), Draining: h.leaving.Load()}
	if h.mesh != nil {
		n.Mesh = nodeMesh(h.mesh.Status())
	}
	return n
}

func nodeMesh(s mesh.Status) *NodeMesh {
	m := &NodeMesh{Peers: make([]NodePeer, 0, min(len(s.Peers), maxNodePeers)), Dropped: s.Dropped, Lost: s.Lost, Refused: s.Refused}
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
			if len(m.Peers) < maxNodePeers {
				m.Peers = append(m.Peers, NodePeer{p.ID, p.Up, float64(p.RTT) / float64(time.Millisecond)})
			}
		}
	}
	return m
}

// nodeInfo is what a replica tells of itself with each heartbeat.
type nodeInfo struct {
	*Node
	Address string `json:"address,omitempty"` // of a mesh that is a Discoverer
}

func (h *Hub) node() store.Node {
	info := nodeInfo{Node: h.self()}
	if h.discoverer != nil {
		info.Address = h.discoverer.Address()
	}
	b, _ := json.Marshal(info) // texts and numbers cannot fail
	return store.Node{ID: h.opts.Node, Started: h.started, Info: b}
}
