package channels

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// NodeStatus is how a replica is.
type NodeStatus string

const (
	NodeGreen  NodeStatus = "green"  // its heartbeats and canaries come in time
	NodeYellow NodeStatus = "yellow" // it works, but Node.Reasons say what is not as it should be
	NodeRed    NodeStatus = "red"    // its heartbeats or its canaries do not come: count it as lost
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

// neighbours are the other replicas.
type neighbours struct {
	apart     atomic.Bool       // one of them has another Store
	mixed     atomic.Int64      // h.uptime() when such a one last published to a channel with history; 0: never
	addresses map[string]string // what the mesh was told; lookAround's own

	mu     sync.Mutex // guards the fields below
	looked time.Time  // when the Store was last asked who lives, and knew it
	stored map[string]neighbour
	heard  map[string]neighbour // who has sent a canary
}

// A neighbour is what is known of another replica.
type neighbour struct {
	node  Node
	at    time.Time // of its last heartbeat or canary, by this replica's clock
	apart int       // how many canaries in a row have come from another Store
	left  bool      // it has said goodbye
	// served: its Store has taken something of it since it was started.
	// Before, it has nothing to say against it, and is no better off.
	served bool
}

// maxHeard bounds the replicas that are known from the mesh.
const maxHeard = 1024

// heard takes what another replica tells of itself with its canary.
func (h *Hub) heard(id string, c *control) {
	if id == h.opts.Node { // a mesh never brings a replica's own
		h.meetTwin()
		return
	}
	h.vitals.mu.Lock()
	epoch := h.vitals.epoch
	h.vitals.mu.Unlock()
	a := &h.around
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.heard[id]
	if !ok && len(a.heard) >= maxHeard {
		return
	}
	if c.Node != nil {
		n.node = *c.Node
		n.node.Mesh = nil
	}
	n.node.ID, n.at, n.left = id, time.Now(), false
	n.served = c.Epoch != ""
	switch {
	case epoch == "" || c.Epoch == "":
	case epoch == c.Epoch:
		n.apart = 0
		a.apart.Store(false)
	default: // for a moment, also where the Store has lost its logs
		if n.apart++; n.apart >= canaryMissed {
			a.apart.Store(true)
		}
	}
	if a.heard == nil {
		a.heard = make(map[string]neighbour)
	}
	a.heard[id] = n
}

// leave notes that a replica's hub has said goodbye. Its mesh may stay for a
// while, and nobody is there to answer canaries.
func (a *neighbours) leave(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.heard[id]; ok {
		a.heard[id] = neighbour{at: time.Now(), left: true}
	}
}

// company counts the other replicas that the mesh has heard of lately, and
// those of them that take clients, are served by their Store, and have said
// nothing against it since.
func (a *neighbours) company() (all, served int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.heard {
		if n.left || time.Since(n.at) >= lateAfter {
			continue
		}
		all++
		if n.served && !n.node.Draining && !slices.ContainsFunc(n.node.Reasons, ofStore) {
			served++
		}
	}
	return all, served
}

// joined returns whether some other replica is linked to others and has said
// nothing against the mesh: clients are better off there than at one that has
// lost it. Links are asked too, as they tell sooner than canaries and heartbeats,
// which each replica misses at a moment of its own.
func (a *neighbours) joined() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	well := func(n neighbour) bool {
		return !n.left && time.Since(n.at) < lateAfter && !slices.Contains(n.node.Reasons, reasonLost+wayMesh)
	}
	for _, n := range a.stored {
		if well(n) && n.node.Mesh != nil && n.node.Mesh.Up > 0 {
			return true
		}
	}
	for id, n := range a.heard {
		if _, known := a.stored[id]; well(n) && !known { // there is no common Store
			return true
		}
	}
	return false
}

// lookAround asks the Store who the other replicas are, and tells the mesh
// where they are.
func (h *Hub) lookAround() {
	ctx, cancel := h.besidesContext()
	defer cancel()
	begin := time.Now()
	nodes, err := h.askNodes(ctx)
	if err != nil {
		h.warnStore(err)
		return // the mesh keeps the peers that it has
	}
	stored, addresses := h.others(nodes, begin)
	settled := h.vitals.settled()
	a := &h.around
	if !settled { // who is silent there may live
		for id, address := range a.addresses {
			if _, ok := addresses[id]; !ok {
				addresses[id] = address
			}
		}
	}
	a.addresses = addresses
	if h.discoverer != nil {
		h.discoverer.SetPeers(maps.Clone(addresses))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = stored
	if settled {
		a.looked = time.Now()
	}
	for id, n := range a.heard {
		if time.Since(n.at) > store.ForgottenAfter {
			delete(a.heard, id)
		}
	}
}

// askNodes is one call of the store.
func (h *Hub) askNodes(ctx context.Context) (nodes []store.Node, err error) {
	err = h.guard("the store", func() (err error) {
		nodes, err = h.store.Nodes(ctx)
		return err
	})
	return nodes, err
}

// others reads what the Store knows of the other replicas. Their clocks do not
// matter, nor does the Store's: it tells how long each has been silent. That is
// counted from when the Store was asked, so that one that is slow makes nobody
// younger.
func (h *Hub) others(nodes []store.Node, at time.Time) (others map[string]neighbour, addresses map[string]string) {
	others, addresses = make(map[string]neighbour), make(map[string]string)
	for _, n := range nodes {
		if n.ID == h.opts.Node {
			if h.reported.Load() && n.Started.UnixMilli() != h.started.UnixMilli() {
				h.meetTwin()
			}
			continue
		}
		age := max(0, n.Silent)
		info := nodeInfo{Node: new(Node)}
		if exact.Unmarshal(n.Info, &info) != nil {
			info = nodeInfo{Node: new(Node)} // status "unknown"
		}
		info.ID, info.Started = n.ID, n.Started
		others[n.ID] = neighbour{node: *info.Node, at: at.Add(-age)}
		if info.Address != "" && age < deadAfter {
			addresses[n.ID] = info.Address
		}
	}
	return others, addresses
}

// warnTwin logs, at most once a minute, that another replica has this one's name.
func (h *Hub) warnTwin() {
	if h.twinWarned.Now(time.Minute) {
		h.log.Error("another living replica has the same Options.Node: lists, presence and connection ids are mixed up until each has its own")
	}
}

// warnApart notes, and logs once, that a message with a position came from a
// replica that has another Store: nobody can put the two histories in one order.
func (h *Hub) warnApart(channel, from string) {
	if !h.around.apart.Load() {
		return
	}
	h.around.mixed.Store(max(1, h.uptime()))
	if h.apartWarned.CompareAndSwap(false, true) {
		h.log.Warn("the replicas have different Stores, so channels with history cannot work across them: give all replicas one Store, or these channels no history", "channel", channel, "from", from)
	}
}

// Nodes returns all replicas, sorted by ID: those that the Store has heard of
// within the last minute, and those that the mesh has, so that it tells
// something also while the Store fails, or where each replica has its own. The
// only error is [ErrClosed].
func (h *Hub) Nodes(ctx context.Context) ([]Node, error) {
	if !h.calls.enter() {
		return nil, ErrClosed
	}
	defer h.calls.leave()
	stored, answered := h.stored(ctx)
	// Others are not expected to be in store.Memory, and channels without history
	// need no common Store. But none can share one with history.
	_, ownStore := h.store.(*store.Memory)
	mixed := h.around.mixed.Load()
	oneStore := !ownStore || mixed > 0 && h.uptime()-mixed < int64(store.ForgottenAfter/time.Second)
	meshWell := h.mesh != nil && meshErr(h.mesh) == nil
	a := &h.around
	a.mu.Lock()
	looked := a.looked
	nodes := []Node{*h.self()}
	for id, n := range stored {
		heard, known := a.heard[id]
		if known && !heard.left && heard.at.After(n.at) {
			if heard.node.Mesh == nil {
				heard.node.Mesh = n.node.Mesh
			}
			n = heard
		}
		age := time.Since(n.at)
		// Where neither the Store nor the mesh would bring its heartbeats, who
		// lived when they last did may live.
		blind := !answered && (!known || !meshWell) && age > lateAfter && looked.Sub(n.at) <= deadAfter
		if age < store.ForgottenAfter || blind {
			nodes = append(nodes, n.node.seen(age, blind))
		}
	}
	for id, n := range a.heard {
		age := time.Since(n.at)
		if _, known := stored[id]; known || n.left || age >= store.ForgottenAfter {
			continue
		}
		node := n.node.seen(age, false)
		if answered && oneStore && n.apart > 0 && age < lateAfter {
			v := verdict{node.Status, node.Reasons}
			v.say(NodeYellow, reasonElsewhere)
			node.Status, node.Reasons = v.status, v.reasons
		}
		nodes = append(nodes, node)
	}
	a.mu.Unlock()
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	return nodes, nil
}

// nodesTimeout is how long the Store may take to tell who the other replicas
// are: when it fails, the list is wanted most.
const nodesTimeout = time.Second

// meshErr is what keeps this replica from its mesh.
func meshErr(m mesh.Mesh) error {
	if err := m.Status().Err; !errors.Is(err, mesh.ErrTwin) {
		return err
	}
	return nil
}

// stored asks the Store for the other replicas, and returns whether it has
// answered; otherwise it is what it said last. The caller owns the map.
func (h *Hub) stored(ctx context.Context) (others map[string]neighbour, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, min(nodesTimeout, h.opts.StoreTimeout))
	defer cancel()
	err := error(ErrStoreUnavailable)
	if !h.storeBad.Load() { // otherwise it would be waited for
		err = h.flush(ctx, true) // so that the newest heartbeat is of now
	}
	if err == nil {
		begin := time.Now()
		nodes, err := h.askNodes(ctx)
		if err == nil {
			others, _ := h.others(nodes, begin)
			return others, true
		}
		h.warnStore(err)
	}
	h.around.mu.Lock()
	defer h.around.mu.Unlock()
	return maps.Clone(h.around.stored), false
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

// serveNodes is GET /v1/nodes.
func (h *Hub) serveNodes(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := queryOf(r); err != nil {
		return err
	}
	if err := h.authorizeHTTP(r, ActionList, ""); err != nil {
		return err
	}
	nodes, err := h.Nodes(r.Context())
	if err != nil {
		return err
	}
	type row struct {
		Node
		Seen int64 `json:"seen_ms"`
	}
	rows := make([]row, len(nodes))
	for i, n := range nodes {
		rows[i] = row{n, n.Seen.Milliseconds()}
	}
	h.writeJSON(w, r, http.StatusOK, map[string][]row{"data": rows})
	return nil
}
