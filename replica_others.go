package channels

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// otherReplicas is what this replica knows of the others, from the Store and from
// the mesh.
type otherReplicas struct {
	apart     atomic.Bool       // one of them has another Store
	mixed     atomic.Int64      // h.uptime() when such a replica last published to a channel with history; 0: never
	addresses map[string]string // what the mesh was told; only lookAround uses it

	mu     sync.Mutex              // guards the fields below
	looked time.Time               // when the Store's list was last reliable: see settled
	stored map[string]otherReplica // what the Store said last
	heard  map[string]otherReplica // those that have sent a canary
}

// An otherReplica is what is known of another replica.
type otherReplica struct {
	replica Replica   // what it last told of itself
	at      time.Time // of its last heartbeat or canary, by this replica's clock
	apart   int       // how many canaries in a row have come from another Store
	left    bool      // it has said goodbye
	// served says that its Store has taken something from it since it started.
	// Before that, it does not know whether its Store works.
	served bool
}

// lives reports whether the replica was heard of lately.
func (n otherReplica) lives() bool { return !n.left && time.Since(n.at) < lateAfter }

// quietAfter is how long after its last heartbeat a replica may have stopped: there is
// one each second, and the Store is asked every two. After stoppedLong, nothing
// that it left behind can still be found missing.
const (
	quietAfter  = 3500 * time.Millisecond
	stoppedLong = 15 * time.Second
)

// someoneIsSilent reports whether another replica has just stopped, or died.
func (a *otherReplicas) someoneIsSilent() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, n := range a.stored {
		last := n.at
		if heard := a.heard[id]; heard.at.After(last) {
			last = heard.at
		}
		if age := time.Since(last); age > quietAfter && age < stoppedLong {
			return true
		}
	}
	return false
}

// maxHeard bounds heard.
const maxHeard = 1024

// heard notes what another replica says of itself in its canary.
func (h *Hub) heard(id string, c *control) {
	if id == h.opts.ReplicaID { // a mesh never delivers a replica's own packets
		h.meetTwin()
		return
	}
	h.vitals.mu.Lock()
	epoch := h.vitals.epoch
	h.vitals.mu.Unlock()
	a := &h.others
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.heard[id]
	if !ok && len(a.heard) >= maxHeard {
		return
	}
	if c.Replica != nil {
		n.replica = c.Replica.replica()
	}
	n.replica.ID, n.at, n.left = id, time.Now(), false
	n.served = c.Epoch != ""
	switch {
	case epoch == "" || c.Epoch == "":
	case epoch == c.Epoch:
		n.apart = 0
		a.apart.Store(false)
	default: // also for a moment after the Store has lost its logs
		if n.apart++; n.apart >= canaryMissed {
			a.apart.Store(true)
		}
	}
	a.heard[id] = n
}

// noteAnotherStore notes, and logs once, that a message with a position came from a
// replica with another Store: the two histories cannot be put in one order.
func (h *Hub) noteAnotherStore(channel, from string) {
	if !h.others.apart.Load() {
		return
	}
	h.others.mixed.Store(max(1, h.uptime()))
	h.warn.anotherStore(channel, from)
}

// goodbye notes that a replica's hub has said goodbye. Its mesh may stay up for a
// while, but its canaries are not answered any more.
func (a *otherReplicas) goodbye(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.heard[id]; ok {
		a.heard[id] = otherReplica{at: time.Now(), left: true}
	}
}

// company counts the other replicas that the mesh has heard lately, and those of
// them that could serve clients better: they are not draining, and their Store
// works as far as they say.
func (a *otherReplicas) company() (all, served int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.heard {
		if !n.lives() {
			continue
		}
		all++
		if n.served && !n.replica.Draining && !slices.ContainsFunc(n.replica.Reasons, ofStore) {
			served++
		}
	}
	return all, served
}

// knows reports whether a replica of this id lives, as far as the Store, the mesh and
// the replica itself say.
func (a *otherReplicas) knows(id string, s mesh.Status) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch heard, ok := a.heard[id]; {
	case heard.left:
		return false
	case ok && heard.lives(), a.stored[id].lives():
		return true
	}
	return slices.ContainsFunc(s.Peers, func(p mesh.Peer) bool { return p.Up && p.ID == id })
}

// linkedElsewhere reports whether another replica is linked to others and has not reported
// its mesh as lost: clients are better off there than at one that has lost its
// mesh. It looks at links: all replicas see them go down at once, but miss canaries
// and heartbeats later, each at its own moment.
func (a *otherReplicas) linkedElsewhere() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	well := func(n otherReplica) bool {
		return n.lives() && !slices.Contains(n.replica.Reasons, reasonLost+wayMesh)
	}
	for _, n := range a.stored {
		if well(n) && n.replica.Mesh != nil && n.replica.Mesh.Up > 0 {
			return true
		}
	}
	for id, n := range a.heard {
		if _, known := a.stored[id]; well(n) && !known { // they have no common Store
			return true
		}
	}
	return false
}

// canaryExpected reports whether some peer should answer a canary: one that is linked,
// and that the Store, if it works, has heard of lately.
func (a *otherReplicas) canaryExpected(s mesh.Status) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := time.Since(a.looked) < lateAfter // what the Store said last still counts
	for _, p := range s.Peers {
		stored, known := a.stored[p.ID]
		switch {
		case !p.Up:
		case p.ID == "": // a broker: another replica has to be behind it
			for _, n := range a.stored {
				if asked && n.lives() && n.replica.Mesh.overBroker() {
					return true
				}
			}
			for _, n := range a.heard {
				if n.lives() {
					return true
				}
			}
		case a.heard[p.ID].left:
		case !asked || !known || stored.lives():
			return true
		}
	}
	return false
}

// unlinked reports whether the link is down to a peer that lives, as the Store says.
// Its messages on channels without history are lost then.
func (a *otherReplicas) unlinked(s mesh.Status) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.looked) < lateAfter && slices.ContainsFunc(s.Peers, func(p mesh.Peer) bool {
		return !p.Up && a.stored[p.ID].lives() && !a.heard[p.ID].left
	})
}

// lookAround asks the Store which other replicas there are, and tells the mesh
// where they are.
func (h *Hub) lookAround() {
	ctx, cancel := h.besidesContext()
	defer cancel()
	stored, addresses, err := h.askReplicas(ctx)
	if err != nil {
		h.warn.storeFails(err)
		return // the mesh keeps the peers that it has
	}
	settled := h.vitals.settled()
	a := &h.others
	if !settled { // a replica that is silent there may live
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
	maps.DeleteFunc(a.heard, func(_ string, n otherReplica) bool { return time.Since(n.at) > store.ForgottenAfter })
}

// askReplicas asks the Store what it knows of the other replicas. No clock is compared
// with another: the Store says how long each replica has been silent.
func (h *Hub) askReplicas(ctx context.Context) (others map[string]otherReplica, addresses map[string]string, err error) {
	at := time.Now() // a slow answer makes no replica younger
	var replicas []store.Replica
	err = h.guard("the store", func() (err error) {
		replicas, err = h.store.Replicas(ctx)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	others, addresses = make(map[string]otherReplica), make(map[string]string)
	for _, n := range replicas {
		if n.ID == h.opts.ReplicaID {
			if h.reported.Load() && n.Started.UnixMilli() != h.started.UnixMilli() {
				h.meetTwin()
			}
			continue
		}
		age := max(0, n.Silent)
		var info replicaJSON
		if len(n.Info) > maxControlBytes || exact.Unmarshal(n.Info, &info) != nil {
			info = replicaJSON{} // its status is unknown
		}
		info.ID, info.Started = n.ID, n.Started
		others[n.ID] = otherReplica{replica: info.replica(), at: at.Add(-age)}
		if info.Address != "" && age < deadAfter {
			addresses[n.ID] = info.Address
		}
	}
	return others, addresses, nil
}
