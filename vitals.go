package channels

import (
	"context"
	"sync"
	"time"

	"github.com/channels-go/channels/store"
)

const (
	// lateAfter and deadAfter are how long after its last heartbeat a replica
	// is yellow, and red.
	lateAfter = 7 * time.Second
	deadAfter = store.DeadAfter
	// unlinkedLong is for how many canaries the link to a living peer may be
	// down: who is killed still seems to live for less.
	unlinkedLong = 3
	// besides bounds what is asked of the Store between two heartbeats: a part
	// of it that hangs must not make this replica seem dead.
	besides = 2 * time.Second
	// remembered is how long a replica says that it was lagging or dropping, or
	// has a twin.
	remembered = 10 * time.Second
)

// vitals is what a hub knows of its own health.
type vitals struct {
	mu       sync.Mutex // guards the fields below
	reported time.Time  // when the Store last took a report, or the hub began
	returned time.Time  // when it took one again after it had not for a while
	dropped  int64      // messages, for slow subscribers and slow peers
	drops    time.Time  // when it last rose
	lagged   time.Time  // when messages were last found missing that no mesh told of
	twin     time.Time  // when another living replica of this one's name was last seen

	store, mesh canary
	epoch       string // of canaryLog

	n        uint64       // the mesh's last canary
	sent     [4]time.Time // when the last ones were, by n modulo 4
	answered bool         // one of them was, since the last was sent
	awaited  bool         // there was somebody to answer it
	linked   bool         // and a link to go over
	cutOff   bool         // the last one that was missed had none
	unlinked int          // for how many canaries in a row the link to a living peer is down
}

// isCutOff returns whether this replica has no links. Where it has, there is
// somebody from whom it does not hear, and it cannot know whose fault that is.
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

// settling is how long a Store may take no report, and how long the other
// replicas may need to report again, before it is known who lives.
const settling = 3 * time.Second

// settled returns whether the Store takes reports, and has for so long that who
// is silent in it is gone.
func (l *vitals) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.reported) <= settling && time.Since(l.returned) > settling
}

// meetTwin notes that another living replica has this one's name.
func (h *Hub) meetTwin() {
	h.warnTwin()
	h.vitals.mu.Lock()
	defer h.vitals.mu.Unlock()
	h.vitals.twin = time.Now()
}

// lag notes that messages were missing. channel.mu may be held.
func (l *vitals) lag() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lagged = time.Now()
}

// echoed notes that another replica has answered a canary.
func (l *vitals) echoed(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := l.n - n; n > l.n || age >= uint64(len(l.sent)) {
		return // of another life, or too late
	}
	l.answered = true
	l.mesh = canary{took: time.Since(l.sent[n%uint64(len(l.sent))])}
}

// countDrops notes whether messages were dropped since the last time. What
// SlowKeepLatest drops is no sign of trouble: the channel wants it so.
func (h *Hub) countDrops() {
	dropped := h.stats.dropped.Load()
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

func (h *Hub) besidesContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, min(besides, h.opts.StoreTimeout))
}
