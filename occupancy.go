package channels

import (
	"context"
	"sync"
	"time"
)

// occupancy calls OnOccupied and OnVacated. Each replica with connections in a channel
// holds a name for it (holds.go), and the one that has held it longest is its owner: that
// one calls the hooks. It stays the owner as long as any replica holds the name. It
// releases the name only after OnVacated has returned, and the next owner begins after
// that. All its methods may be called concurrently.
type occupancy struct {
	hub *Hub

	mu       sync.Mutex // guards the fields below and those of each occupied
	all      map[string]*occupied
	idle     map[*occupied]struct{} // that have no connection here, and may be vacated
	ready    []*occupied            // whose hooks are to be called
	running  int                    // goroutines that call them
	told     int                    // of all: fed from here, or with a hook under way
	draining bool                   // owners are to be found elsewhere
	closing  bool                   // all are to be vacated
	asked    time.Time              // when a drain last asked for all
}

// occupied is a channel that has connections here, or is fed from here.
type occupied struct {
	of      *occupancy
	channel string

	// Guarded by occupancy.mu.
	here     bool      // it has connections here
	since    time.Time // if not: since when no replica has any, as far as this one knows
	owner    bool      // this replica is, as the Store last said
	alone    bool      // no other replica has connections, as the Store last said
	fed      bool      // OnOccupied was called, and OnVacated was not
	vacating bool      // OnVacated is due though this replica is the owner
	passed   bool      // a drain has handed it over
	busy     bool      // it is in ready, or its hook is under way
	end      context.CancelFunc
}

const (
	// vacateAfter is how long a channel may be without connections before it is
	// vacated: a page that reloads does not stop what feeds it.
	vacateAfter = 2 * time.Second
	// maxHooks bounds the calls of OnOccupied and OnVacated at a time.
	maxHooks = 16
)

func occupiedName(channel string) string { return "o" + channel }

// newOccupancy returns nil if the app has no hook for it, so that channels cost nothing
// more.
func newOccupancy(h *Hub) *occupancy {
	if h.opts.OnOccupied == nil && h.opts.OnVacated == nil {
		return nil
	}
	h.holds.begin()
	return &occupancy{hub: h, all: make(map[string]*occupied), idle: make(map[*occupied]struct{})}
}

// set says that a channel has its first connection here, or that its last one has gone.
// It is called with channel.mu held, so in order.
func (oc *occupancy) set(channel string, here bool) {
	oc.mu.Lock()
	defer oc.mu.Unlock()
	o := oc.all[channel]
	if o == nil {
		if !here {
			return
		}
		o = &occupied{of: oc, channel: channel}
		oc.all[channel] = o
	}
	o.here = here
	if here {
		delete(oc.idle, o)
		oc.wantLocked(o)
	} else {
		o.since = time.Now()
		oc.idle[o] = struct{}{}
	}
	oc.stepLocked(o)
}

func (oc *occupancy) wantLocked(o *occupied) {
	if !o.passed {
		oc.hub.holds.want(occupiedName(o.channel), nil, o)
		oc.hub.holds.ask(occupiedName(o.channel)) // if the Store has it already, nothing else makes it answer
	}
}

// answered takes the Store's word for who is the owner.
func (o *occupied) answered(_ context.Context, a heldAnswer) {
	oc := o.of
	oc.mu.Lock()
	defer oc.mu.Unlock()
	if oc.all[o.channel] != o {
		return
	}
	o.owner = a.has && a.Owner == oc.hub.opts.ReplicaID
	if a.Holders == 1 && !o.alone && !o.here {
		o.since = time.Now() // the last connection has gone only now, from another replica
	}
	o.alone = a.Holders == 1
	switch {
	case o.owner && oc.draining && !o.alone: // somebody else can go on
		o.vacating, o.passed = true, true
	case o.owner && o.alone && !o.here && a.asked && time.Since(o.since) >= oc.patienceLocked():
		o.vacating = true
	case o.owner && o.alone && !o.here:
		oc.idle[o] = struct{}{}
	}
	oc.stepLocked(o)
}

func (o *occupied) dropped() {}

func (oc *occupancy) patienceLocked() time.Duration {
	if oc.draining {
		return 0
	}
	return vacateAfter
}

// due says which hook is to be called.
func (oc *occupancy) dueLocked(o *occupied) (occupy, vacate bool) {
	vacate = o.fed && (!o.owner || oc.closing || o.vacating && (o.passed || !o.here))
	occupy = !o.fed && o.owner && o.here && !oc.closing && !o.passed
	return occupy, vacate
}

// stepLocked does what is due.
func (oc *occupancy) stepLocked(o *occupied) {
	if o.busy {
		return // its hook's end comes here again
	}
	if occupy, vacate := oc.dueLocked(o); occupy || vacate {
		o.busy = true
		if !o.fed {
			oc.told++
		}
		oc.ready = append(oc.ready, o)
		oc.runLocked()
		return
	}
	o.vacating = false
	if o.fed || o.here && !o.passed && !oc.closing {
		return
	}
	oc.hub.holds.release(occupiedName(o.channel))
	if !o.here {
		delete(oc.all, o.channel)
		delete(oc.idle, o)
	}
}

// runLocked starts a goroutine that calls hooks, if there are not enough. It ends when
// none is left. Shutdown waits for it, as for all tasks.
func (oc *occupancy) runLocked() {
	if oc.running < maxHooks && oc.hub.tasks.Run(oc.callHooks) {
		oc.running++
	}
}

func (oc *occupancy) callHooks() {
	oc.mu.Lock()
	defer oc.mu.Unlock()
	for len(oc.ready) > 0 {
		o := oc.ready[0]
		oc.ready = oc.ready[1:]
		if occupy, vacate := oc.dueLocked(o); occupy {
			oc.occupyLocked(o)
		} else if vacate {
			oc.vacateLocked(o)
		}
		o.busy = false
		if !o.fed {
			oc.told--
		}
		oc.stepLocked(o)
	}
	oc.running--
}

// occupyLocked calls OnOccupied, without the lock.
func (oc *occupancy) occupyLocked(o *occupied) {
	h := oc.hub
	var ctx context.Context
	ctx, o.end = context.WithCancel(h.ctx)
	o.fed = true
	if f := h.opts.OnOccupied; f != nil {
		oc.mu.Unlock()
		h.guard("OnOccupied", func() error { f(ctx, o.channel); return nil })
		oc.mu.Lock()
	}
}

// vacateLocked calls OnVacated, without the lock.
func (oc *occupancy) vacateLocked(o *occupied) {
	h := oc.hub
	o.end()
	if f := h.opts.OnVacated; f != nil {
		oc.mu.Unlock()
		h.guard("OnVacated", func() error { f(h.ctx, o.channel); return nil })
		oc.mu.Lock()
	}
	o.fed, o.vacating, o.end = false, false, nil
}

// look asks the Store about channels that may be vacated. It is called once a second, or
// more often.
func (oc *occupancy) look() {
	if oc == nil {
		return
	}
	oc.mu.Lock()
	defer oc.mu.Unlock()
	now := time.Now()
	for o := range oc.idle {
		switch {
		case !o.fed && !o.busy:
			delete(oc.idle, o)
		case now.Sub(o.since) >= oc.patienceLocked():
			delete(oc.idle, o) // the answer or later news puts it back
			oc.hub.holds.ask(occupiedName(o.channel))
		}
	}
	if oc.draining && now.Sub(oc.asked) >= time.Second {
		oc.askAllLocked(now)
	}
}

// drain hands over the channels that other replicas can feed, as soon as they can.
func (oc *occupancy) drain() {
	if oc == nil {
		return
	}
	oc.mu.Lock()
	defer oc.mu.Unlock()
	oc.draining = true
	oc.askAllLocked(time.Now())
}

func (oc *occupancy) askAllLocked(now time.Time) {
	oc.asked = now
	for _, o := range oc.all {
		if o.fed {
			oc.hub.holds.ask(occupiedName(o.channel))
		}
	}
}

// close vacates all channels. It waits for the hooks until ctx ends.
func (oc *occupancy) close(ctx context.Context) error {
	if oc == nil {
		return nil
	}
	oc.mu.Lock()
	oc.closing = true
	for _, o := range oc.all {
		oc.stepLocked(o)
	}
	oc.mu.Unlock()
	return awaitNone(ctx, func() int {
		oc.mu.Lock()
		defer oc.mu.Unlock()
		return oc.told
	})
}
