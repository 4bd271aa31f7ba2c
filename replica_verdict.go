package channels

import (
	"strings"
	"time"

	"github.com/channels-go/channels/store"
)

const (
	// lateAfter and deadAfter are how long after its last heartbeat a replica
	// is yellow, and red.
	lateAfter = 7 * time.Second
	deadAfter = store.DeadAfter
	// reportLate is how long after the last one a report that comes each second is
	// late by more than a canary may be.
	reportLate = time.Second + canaryLate
	// unlinkedLong is for how many canaries the link to a living peer may be
	// down: 9 s. A killed replica counts as living for lateAfter only, which is
	// shorter, so its link is never reported.
	unlinkedLong = 3
	// remembered is how long a replica goes on to say that it was lagging or
	// dropping, or had a twin.
	remembered = 10 * time.Second
)

// say adds a reason for a status. The replica keeps the worst of them.
func (r *Replica) say(s ReplicaStatus, reason string) {
	if r.Status != ReplicaRed {
		r.Status = s
	}
	r.Reasons = append(r.Reasons, reason)
}

const (
	reasonMissed = "heartbeats missed"
	reasonLate   = "heartbeat late"
	reasonLost   = "canary lost: "
	// The next two stand for reasonMissed and reasonLate while the Store takes no
	// heartbeats.
	reasonUnreported = "reports lost: " + wayStore
	reasonUnsure     = "report late: " + wayStore
	reasonTwin       = "same name"
	reasonElsewhere  = "another store"
	reasonSlow       = "canary late: "
	reasonUnknown    = "unknown" // it has a status that this version does not know
	wayStore         = "store"
	wayMesh          = "mesh"
)

// ofStore reports whether a reason means trouble with the Store.
func ofStore(reason string) bool {
	return reason == reasonMissed || reason == reasonLate || strings.HasSuffix(reason, ": "+wayStore)
}

// after is the replica after a time of silence. If blind, this replica could
// not have heard it: the silence says nothing about the other one.
func (r Replica) after(silent time.Duration, blind bool) Replica {
	r.Seen = max(0, silent)
	r.Reasons = append([]string{}, r.Reasons...)
	switch {
	case blind && silent > deadAfter:
		r.Status, r.Reasons = ReplicaRed, []string{reasonUnreported}
	case silent > deadAfter:
		r.Status, r.Reasons = ReplicaRed, []string{reasonMissed} // what it said of itself is past
	case r.Status != ReplicaGreen && r.Status != ReplicaYellow && r.Status != ReplicaRed:
		r.Status, r.Reasons = ReplicaYellow, []string{reasonUnknown}
	case blind:
		r.say(ReplicaYellow, reasonUnsure)
	case silent > lateAfter:
		r.say(ReplicaYellow, reasonLate)
	}
	return r
}

// verdict judges this replica: it sets its Status and its Reasons. If it is red, the
// error is for the clients that come all the same.
func (h *Hub) verdict() (Replica, error) {
	v := Replica{Status: ReplicaGreen, Reasons: []string{}}
	var unready error
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	v.StoreTime, v.StoreSeen = l.store.took, l.storeSeenLocked()
	l.mesh.judge(&v, wayMesh)
	if v.Status == ReplicaRed {
		unready = ErrMeshUnavailable
	}
	switch silent := time.Since(l.reported); {
	case silent > deadAfter:
		v.say(ReplicaRed, reasonUnreported)
	case silent > lateAfter:
		v.say(ReplicaYellow, reasonUnsure)
	}
	l.store.judge(&v, wayStore)
	if time.Since(l.reported) > reportLate && !l.store.isLate() { // the next canary waits behind the report
		v.say(ReplicaYellow, reasonSlow+wayStore)
	}
	if v.Status == ReplicaRed && unready == nil {
		unready = ErrStoreUnavailable
	}
	warn := func(is bool, reason string) {
		if is {
			v.say(ReplicaYellow, reason)
		}
	}
	warn(l.unlinked > unlinkedLong, "link down")
	warn(time.Since(l.twin) < remembered, reasonTwin)
	warn(l.isLaggingLocked(), "lagging")
	warn(time.Since(l.drops) < remembered, "dropping")
	warn(h.draining.Load(), "draining")
	warn(h.clients.connections() > h.opts.MaxConnections/5*4 || h.fan.Queued() > int64(h.opts.MaxQueuedBytes)/5*4, "loaded")
	return v, unready
}
