package admin

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"github.com/channels-go/channels"
)

// Reasons are the reasons that have words: what each means, and what to do.
func Reasons() map[string][2]string {
	all := map[string][2]string{}
	for reason, a := range reasons {
		all[reason] = [2]string{a.means, a.do}
	}
	return all
}

// A Watch watches replicas that a test makes up, by a clock of the test. It runs at
// replica a.
type Watch struct{ w watch }

func NewWatch(now func() time.Time, replicas func() ([]channels.Replica, error)) *Watch {
	w := &Watch{watch{now: now, self: "a", wanted: func() int { return 0 }, tallies: map[string]tally{}}}
	w.w.replicas = func(context.Context) ([]channels.Replica, error) { return replicas() }
	return w
}

func (w *Watch) Sample() { w.w.sample() }

// Forget has the next look be a new one, whatever the clock says.
func (w *Watch) Forget() *Watch {
	w.w.latest = nil
	return w
}

// Silent are the replicas of which nothing is heard, with their reasons.
func (w *Watch) Silent() map[string][]string {
	all := map[string][]string{}
	for _, r := range w.w.look().replicas {
		if r.silent {
			all[r.ID] = r.Reasons
		}
	}
	return all
}

// Want has so many replicas be wanted.
func (w *Watch) Want(n int) { w.w.wanted = func() int { return n } }

// Fates says of each dead replica, with those that are listed no more, whether its place
// is filled: "no", "yes", or by which one.
func (w *Watch) Fates() map[string]string {
	all := map[string]string{}
	note := func(id string, f fate) {
		all[id] = cmp.Or(f.by, map[bool]string{true: "yes", false: "no"}[f.filled])
	}
	v := w.w.look()
	for _, d := range v.departed {
		note(d.id+" (gone)", d.fate)
	}
	for _, r := range v.replicas {
		if r.isDead() {
			note(r.ID, r.fate)
		}
	}
	return all
}

// Store is what is said of the Store.
func (w *Watch) Store() string {
	s := w.w.look().store(w.w.self)
	return s.Status + ": " + s.Words
}

// Again is after how long the page asks again.
func (w *Watch) Again() time.Duration { return w.w.look().again() }

// A Point is a point of the charts.
type Point struct {
	Second                          int64
	Replicas, Green, Connections    int
	Requests, Publishes, Deliveries float64
}

// Err is why nothing is seen.
func (w *Watch) Err() error { return w.w.look().err }

func (w *Watch) Since(second int64) (all []Point) {
	for _, p := range w.w.since(second) {
		all = append(all, Point{p.second, p.replicas, p.green, p.connections, p.requests, p.publishes, p.deliveries})
	}
	return all
}

// FillPoints has the page have points of the last 15 minutes.
func (a *Admin) FillPoints() {
	a.watch.mu.Lock()
	defer a.watch.mu.Unlock()
	now := time.Now().Unix()
	for i := range int64(ringSize) {
		f := float64(i)
		a.watch.points.add(point{second: now - ringSize + i, replicas: 16, green: 16, connections: int(i) * 1000, requests: f * 1.1, publishes: f * 10.3, deliveries: f * 1000.7, p50: 1.234, p99: 5.678})
	}
}

// Tallies is how many replicas it remembers.
func (w *Watch) Tallies() int { return len(w.w.tallies) }

// Missing knows since when replicas are missing.
type Missing struct{ m missing }

func NewMissing(born time.Time) *Missing                     { return &Missing{missing{born: born}} }
func (m *Missing) Answered(now time.Time, ready, wanted int) { m.m.answered(now, ready, wanted) }
func (m *Missing) Ordered(now time.Time, wanted int)         { m.m.ordered(now, wanted) }
func (m *Missing) Late(now time.Time) bool                   { return m.m.late(now) }

// BornBefore has the page be older. Nobody has asked it yet.
func (a *Admin) BornBefore(d time.Duration) { a.scaling.missing.born = a.scaling.missing.born.Add(-d) }

// CloseWithin is how long Close waits.
func (a *Admin) CloseWithin(d time.Duration) { a.wait = d }

// Guesses are wrong tokens by address.
type Guesses struct{ g guesses }

func (g *Guesses) Wrong(from netip.Prefix, now time.Time)              { g.g.wrong(from, now) }
func (g *Guesses) Wait(from netip.Prefix, now time.Time) time.Duration { return g.g.wait(from, now) }
func (g *Guesses) Len() int                                            { return len(g.g.from) }

const MaxGuessers = maxGuessers

// IsSession reports whether a cookie made at one time counts at another.
func (a *Admin) IsSession(made, at time.Time) bool {
	_, value := a.newSession(made)
	_, ok := a.readSession(value, at)
	return ok
}

// Session is the value of a cookie.
func (a *Admin) Session() string {
	_, value := a.newSession(time.Now())
	return value
}

// Reads reports whether a page takes the cookie of another.
func (a *Admin) Reads(value string) bool {
	_, ok := a.readSession(value, time.Now())
	return ok
}

// Rooms is how many channels it keeps what was read of.
func (a *Admin) Rooms() int {
	a.rooms.mu.Lock()
	defer a.rooms.mu.Unlock()
	return len(a.rooms.all)
}
