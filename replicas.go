package channels

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// replicaState is what this replica knows of itself and of the others, and what it is
// to tell the Store. Each part has its own lock and its own file.
type replicaState struct {
	vitals    vitals        // this replica (replica_vitals.go)
	others    otherReplicas // the others (replica_others.go)
	usage     usage         // what this one takes of its machine (replica_usage.go)
	letters   chan letter   // answers to be sent (replica_control.go)
	report    reporter      // what the Store is still to be told (replica_report.go)
	questions questions     // to the others, without an answer yet (user_online.go)
	holds     holds         // what this replica holds of the names that all share (holds.go)
	graces    graces        // the users who may come back (presence_user.go)
	// discoverer is the mesh if it needs the hub to tell it of its peers, or nil.
	discoverer mesh.Discoverer

	reported atomic.Bool // the Store was sent a report
	storeBad atomic.Bool // the last report failed
}

func (s *replicaState) init(now time.Time, m mesh.Mesh) {
	s.vitals.reported = now
	s.others.heard = make(map[string]otherReplica)
	s.letters = make(chan letter, maxLetters)
	s.holds.init()
	s.report.full = true // the Store knows nothing of this replica yet
	s.discoverer, _ = m.(mesh.Discoverer)
}

// Replicas returns all replicas, sorted by ID: those that the Store or the mesh
// has heard within the last minute. So it works while the Store fails, or if each
// replica has its own. The only error is [ErrClosed].
func (h *Hub) Replicas(ctx context.Context) ([]Replica, error) {
	if !h.calls.Enter() {
		return nil, ErrClosed
	}
	defer h.calls.Leave()
	stored, answered := h.stored(ctx)
	// Beside store.Memory, other replicas are not expected in the Store, and
	// channels without history need no common one. With history they do.
	mixed := h.others.mixed.Load()
	oneStore := !h.store.memory || mixed > 0 && h.uptime()-mixed < int64(store.ForgottenAfter/time.Second)
	meshWell := false
	if h.mesh != nil {
		err := h.mesh.Status().Err
		meshWell = err == nil || errors.Is(err, mesh.ErrTwin)
	}
	all := []Replica{h.self()}
	a := &h.others
	a.mu.Lock()
	looked := a.looked
	for id, n := range stored {
		heard, known := a.heard[id]
		if known && !heard.left && heard.at.After(n.at) {
			if heard.replica.Mesh == nil {
				heard.replica.Mesh = n.replica.Mesh
			}
			n = heard
		}
		age := time.Since(n.at)
		// If neither the Store nor the mesh can bring its heartbeats, a
		// replica that was alive when they last could may still be.
		blind := !answered && (!known || !meshWell) && age > lateAfter && looked.Sub(n.at) <= deadAfter
		if age < store.ForgottenAfter || blind {
			all = append(all, n.replica.after(age, blind))
		}
	}
	for id, n := range a.heard {
		age := time.Since(n.at)
		if _, known := stored[id]; known || n.left || age >= store.ForgottenAfter {
			continue
		}
		r := n.replica.after(age, false)
		if answered && oneStore && n.apart > 0 && age < lateAfter {
			r.say(ReplicaYellow, reasonElsewhere)
		}
		all = append(all, r)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(a, b Replica) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// stored asks the Store for the other replicas. If it does not answer, stored
// returns what it said last. The caller owns the map.
func (h *Hub) stored(ctx context.Context) (others map[string]otherReplica, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, min(replicasTimeout, h.opts.StoreTimeout))
	defer cancel()
	// If the last report has failed, a call would only wait. If not, one more brings
	// this replica's record up to date.
	if !h.storeBad.Load() && h.flush(ctx, true) == nil {
		others, _, err := h.askReplicas(ctx)
		if err == nil {
			return others, true
		}
		h.warn.storeFails(err)
	}
	h.others.mu.Lock()
	defer h.others.mu.Unlock()
	return maps.Clone(h.others.stored), false
}
