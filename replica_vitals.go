package channels

import (
	"sync"
	"time"
)

// vitals is what a hub knows of its own health. replica_verdict.go judges it.
type vitals struct {
	mu       sync.Mutex // guards the fields below
	reported time.Time  // when the Store last took a report, or the hub began
	returned time.Time  // when it took one again after a pause
	dropped  int64      // messages that slow subscribers and slow peers did not get
	drops    time.Time  // when dropped last rose
	lagged   time.Time  // when messages were last found missing that the mesh had not reported as lost
	lags     time.Time  // when that was after a while in which there was nothing of the kind
	paused   time.Time  // when another replica or the Store was last seen to pause, which explains that
	twin     time.Time  // when another living replica with this one's id was last seen

	store, mesh canary
	epoch       string // of canaryLog

	n        uint64       // the number of the mesh's last canary
	sent     [4]time.Time // when the last canaries were sent, by n modulo 4
	answered bool         // one of them was answered since the last was sent
	awaited  bool         // a replica was there to answer the last one
	linked   bool         // there was a link for it
	cutOff   bool         // there was no link for the last canary that was missed
	unlinked int          // for how many canaries in a row the link to a living peer has been down
}

// isCutOff reports whether this replica misses canaries and has no links. With a
// link, it does not hear from a replica that may be at fault itself.
func (l *vitals) isCutOff() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutOff
}

func (l *vitals) report() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.reported) > settling {
		l.returned = now
	}
	l.reported = now
}

// settling is how long the Store may refuse reports before silence in it means nothing.
// Silence means death again once the Store has taken reports for as long.
const settling = 3 * time.Second

// settled reports whether the Store has taken reports for so long that a replica
// that is silent in it is dead.
func (l *vitals) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.reported) <= settling && time.Since(l.returned) > settling
}

// meetTwin notes that another living replica has this one's id.
func (h *Hub) meetTwin() {
	h.warn.sameID()
	h.vitals.mu.Lock()
	defer h.vitals.mu.Unlock()
	h.vitals.twin = time.Now()
}

// lag notes that messages were missing. channel.mu may be held.
func (l *vitals) lag() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.lagged) > remembered {
		l.lags = now
	}
	l.lagged = now
}

// isLaggingLocked reports whether messages were missing and it may be this replica's
// fault. If another one stops between the Store and the mesh, its messages are missing
// everywhere, and after a Store has paused, so are many. Whether that is the reason is
// known a while later.
func (l *vitals) isLaggingLocked() bool {
	return time.Since(l.lagged) < remembered && time.Since(l.lags) > quietAfter+time.Second && l.lagged.Sub(l.paused) > remembered
}

// storeSeenLocked is how long ago the Store has taken anything of this replica.
func (l *vitals) storeSeenLocked() time.Duration {
	return min(time.Since(l.reported), time.Since(l.store.at))
}

// notePauses notes whether another replica or the Store pauses.
func (h *Hub) notePauses() {
	silent := h.others.someoneIsSilent()
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	if silent || time.Since(l.reported) > reportLate {
		l.paused = time.Now()
	}
}

// echoed notes that another replica has answered a canary.
func (l *vitals) echoed(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := l.n - n; n > l.n || age >= uint64(len(l.sent)) {
		return // it is too late, or from before a restart
	}
	l.answered = true
	l.mesh.back(time.Since(l.sent[n%uint64(len(l.sent))]))
}

// canaries are the hub's numbers about them.
func (l *vitals) canaries(mesh bool) map[string]CanaryMetrics {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]CanaryMetrics{wayStore: l.store.metrics()}
	if mesh {
		all[wayMesh] = l.mesh.metrics()
	}
	return all
}

func (c *canaryCounts) metrics() CanaryMetrics { return CanaryMetrics{c.sent, c.lost, c.last} }

// countDrops notes whether messages were dropped since it was last called. It
// does not count SlowKeepLatest, where the channel wants it so.
func (h *Hub) countDrops() {
	dropped := h.fan.Dropped.Load()
	if h.mesh != nil {
		dropped += h.mesh.Status().Dropped
	}
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	if dropped > l.dropped {
		l.drops = time.Now()
	}
	l.dropped = dropped
}
