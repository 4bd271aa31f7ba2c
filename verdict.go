package channels

import (
	"strings"
	"time"
)

// ReplicaStatus is how a replica is.
type ReplicaStatus string

const (
	ReplicaGreen  ReplicaStatus = "green"  // its heartbeats and canaries come in time
	ReplicaYellow ReplicaStatus = "yellow" // it works, but Node.Reasons say what is not as it should be
	ReplicaRed    ReplicaStatus = "red"    // its heartbeats or its canaries do not come: count it as lost
)

// A verdict is the worst status of several, with the reasons of all.
type verdict struct {
	status  ReplicaStatus
	reasons []string
}

func (v *verdict) say(s ReplicaStatus, reason string) {
	if v.status != ReplicaRed {
		v.status = s
	}
	v.reasons = append(v.reasons, reason)
}

const (
	reasonMissed = "heartbeats missed"
	reasonLate   = "heartbeat late"
	reasonLost   = "canary lost: "
	// While the Store takes no heartbeats, it is not those that are missed.
	reasonUnreported = "reports lost: " + wayStore
	reasonUnsure     = "report late: " + wayStore
	reasonTwin       = "same name"
	reasonElsewhere  = "another store"
	wayStore         = "store"
	wayMesh          = "mesh"
)

// ofStore tells whether a replica that gives this reason has trouble with its Store.
func ofStore(reason string) bool {
	return reason == reasonMissed || reason == reasonLate || strings.HasSuffix(reason, ": "+wayStore)
}

// verdict says how this replica is, and the error for those who come to it
// while it is red.
func (h *Hub) verdict() (verdict, error) {
	v := verdict{status: ReplicaGreen, reasons: []string{}}
	var unready error
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mesh.judge(&v, wayMesh)
	if v.status == ReplicaRed {
		unready = ErrMeshUnavailable
	}
	switch silent := time.Since(l.reported); {
	case silent > deadAfter:
		v.say(ReplicaRed, reasonUnreported)
	case silent > lateAfter:
		v.say(ReplicaYellow, reasonUnsure)
	}
	l.store.judge(&v, wayStore)
	if v.status == ReplicaRed && unready == nil {
		unready = ErrStoreUnavailable
	}
	if l.unlinked > unlinkedLong {
		v.say(ReplicaYellow, "link down")
	}
	if time.Since(l.twin) < remembered {
		v.say(ReplicaYellow, reasonTwin)
	}
	if time.Since(l.lagged) < remembered {
		v.say(ReplicaYellow, "lagging")
	}
	if time.Since(l.drops) < remembered {
		v.say(ReplicaYellow, "dropping")
	}
	if h.leaving.Load() {
		v.say(ReplicaYellow, "draining")
	}
	if h.clients.connections() > h.opts.MaxConnections/5*4 || h.queued.sum() > int64(h.opts.MaxQueuedBytes)/5*4 {
		v.say(ReplicaYellow, "loaded")
	}
	return v, unready
}
