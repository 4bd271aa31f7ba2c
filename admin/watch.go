package admin

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

const (
	// fresh is how long a look is good for, so that many viewers cost no more than a
	// few looks a second.
	fresh = 250 * time.Millisecond
	// often is after how long the page asks again. It may get a look that is as old as
	// fresh, so a light turns within a second of the change.
	often = 700 * time.Millisecond
	// lookTimeout bounds a look. Hub.Replicas takes no longer than a second.
	lookTimeout = 2 * time.Second
	// quiet is how long after a replica's last heartbeat it counts as silent. Over the
	// mesh alone there is one every 3 s.
	quiet = 4 * time.Second
	// cutOff is the same for a replica whose link is down as well.
	cutOff = 1500 * time.Millisecond
	// shortest is the least time between two heartbeats for a rate: over less, a
	// heartbeat that was a little late would look like a peak.
	shortest = 500 * time.Millisecond
	// steady is over how long the hint takes the processors in use: nobody should
	// scale for a peak of a second.
	steady = 30 * time.Second
)

// watch knows the replicas as this one sees them, and how much each does a second.
type watch struct {
	replicas func(context.Context) ([]channels.Replica, error)
	wanted   func() int // how many replicas should run; 0 if nobody knows
	self     string     // the id of this replica
	now      func() time.Time

	mu      sync.Mutex // guards the fields below
	latest  *view
	looking *look // nil if nobody looks
	points  ring

	tallies  map[string]tally // by replica; only whoever looks uses it
	departed []departed       // the same
}

// A look is under way, or has ended.
type look struct {
	view *view         // valid when done is closed
	done chan struct{} // closed at the end
}

// A view is what one look has seen. Nobody changes it.
type view struct {
	at       time.Time
	replicas []watched
	departed []departed // that are in the list no more; the latest first
	err      error
}

// watched is a replica with its rates. One that is silent is not green.
type watched struct {
	channels.Replica
	perSecond rates
	known     bool    // perSecond is
	old       bool    // its numbers are of the time before it was silent or cut off
	silent    bool    // nothing is heard of it
	fate      fate    // of its place, if it is dead
	cpu       float64 // processors in use, over half a minute: for the hint
}

// rates are how much a replica does a second.
type rates struct{ requests, publishes, deliveries float64 }

// A tally is what a replica's totals were at a heartbeat.
type tally struct {
	at                             time.Time
	uptime                         time.Duration
	started                        int64 // Unix time in milliseconds, which is what the Store keeps
	requests, published, delivered int64
	perSecond                      rates
	known                          bool
	cpu                            float64
	cut                            time.Time // since when the link to it has been seen down; zero if it is not
	silent, draining               bool
}

func (w *watch) init(hub *channels.Hub, wanted func() int, now func() time.Time) {
	w.replicas, w.wanted, w.self, w.now = hub.Replicas, wanted, hub.ReplicaID(), now
	w.tallies = map[string]tally{}
}

// look returns a view that is fresh. Callers that come while somebody looks share the
// view.
func (w *watch) look() *view {
	w.mu.Lock()
	if v := w.latest; v != nil && w.now().Before(v.until()) {
		w.mu.Unlock()
		return v
	}
	if l := w.looking; l != nil {
		w.mu.Unlock()
		<-l.done
		return l.view
	}
	l := &look{view: &view{err: channels.ErrInternal}, done: make(chan struct{})}
	w.looking = l
	w.mu.Unlock()
	defer func() { // also if the app's Store panics
		w.mu.Lock()
		w.latest, w.looking = l.view, nil
		w.mu.Unlock()
		close(l.done)
	}()
	l.view = w.ask()
	return l.view
}

// ask asks the hub. The context is no viewer's, since others share the answer.
func (w *watch) ask() *view {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	all, err := w.replicas(ctx)
	v := &view{at: w.now(), err: err, replicas: make([]watched, len(all))}
	if err != nil {
		return v // with the tallies as they were, the next look knows the rates
	}
	before := w.tallies
	w.tallies = make(map[string]tally, len(all))
	down := w.down(all)
	for i, r := range all {
		heard := v.at.Add(-r.Seen)
		t := before[r.ID].next(r, heard)
		if t.cut = before[r.ID].cut; !down[r.ID] {
			t.cut = time.Time{}
		} else if t.cut.IsZero() {
			t.cut = v.at
		}
		v.replicas[i] = watched{Replica: r, perSecond: t.perSecond, cpu: t.cpu}
		v.replicas[i].judge(t.known, heard.Before(t.cut))
		t.silent, t.draining = v.replicas[i].silent, r.Draining
		w.tallies[r.ID] = t
	}
	w.departed = bury(w.departed, before, v)
	v.departed = slices.Clone(w.departed)
	settle(v, w.wanted())
	return v
}

// down are the replicas to which the link of this one is down, and no other one is up.
func (w *watch) down(all []channels.Replica) map[string]bool {
	is := map[string]bool{}
	for _, r := range all {
		if r.ID != w.self || r.Mesh == nil {
			continue
		}
		for _, p := range r.Mesh.Peers {
			_, another := is[p.ID]
			is[p.ID] = !p.Up && (is[p.ID] || !another)
		}
	}
	return is
}

// judge says whether a replica is silent. Its numbers do not count from the moment that
// its link is down until another heartbeat comes: if it was killed, its clients are at
// the others long before it is late. rated says whether its rates are known, and cut
// that no heartbeat has come since its link went down.
func (r *watched) judge(rated, cut bool) {
	r.silent = r.Seen > quiet || cut && r.Seen > cutOff
	r.old = cut || r.silent
	r.known = rated && !r.old
	if !r.silent || r.Status == channels.ReplicaRed || slices.Contains(r.Reasons, "report late: store") {
		return
	}
	if r.Status == channels.ReplicaGreen {
		r.Status = channels.ReplicaYellow
	}
	r.Reasons = slices.DeleteFunc(slices.Clone(r.Reasons), func(reason string) bool { return reason == "heartbeat late" })
	r.Reasons = append(r.Reasons, reasonSilent) // one thing has one name here
}

// next is the tally after another look. at is when the replica's numbers were true: its
// rates are over the time between heartbeats, not between looks.
func (t tally) next(r channels.Replica, at time.Time) tally {
	n := tally{at: at, uptime: r.Uptime, started: r.Started.UnixMilli(), requests: r.Requests, published: r.Published, delivered: r.Delivered, cpu: r.CPU}
	if t.at.IsZero() || t.started != n.started {
		return n // it is new, or another process
	}
	passed := n.uptime - t.uptime // by the replica's own clock: a heartbeat may be late
	if n.uptime == 0 {            // it is of an older version
		passed = at.Sub(t.at)
	}
	if passed < shortest { // also if the mesh has told more than the Store does now
		return t
	}
	if n.requests < t.requests || n.published < t.published || n.delivered < t.delivered {
		return n
	}
	s := passed.Seconds()
	n.perSecond = rates{float64(n.requests-t.requests) / s, float64(n.published-t.published) / s, float64(n.delivered-t.delivered) / s}
	n.known = true
	n.cpu = t.cpu + (r.CPU-t.cpu)*(1-math.Exp(-s/steady.Seconds()))
	return n
}

// again is after how long the page asks again: at the latest when a light may turn red
// without a word from its replica.
func (v *view) again() time.Duration {
	d := often
	for _, r := range v.replicas {
		if left := store.DeadAfter - r.Seen; left >= 0 && left < d {
			d = left + 5*time.Millisecond // it is red after that time, not at it
		}
	}
	return d
}

func (v *view) until() time.Time { return v.at.Add(min(fresh, v.again())) }

// sample looks, and keeps a point of what it sees.
func (w *watch) sample() {
	v := w.look()
	if v.err != nil {
		return // which is a gap in the charts
	}
	p := v.point()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.points.add(p)
}

// since returns the points after a second.
func (w *watch) since(second int64) []point {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.points.since(second)
}
