package channels

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/store"
)

// holds are the names that this replica holds in the Store, where all replicas agree on
// who was the first to hold one and who is the last: the users in a channel
// (presence_user.go), and the channels with subscribers (occupancy.go). All its methods
// may be called concurrently.
type holds struct {
	wake bell.Bell
	used atomic.Bool // the Store has to hear from this replica each second

	mu    sync.Mutex // guards the fields below, and those of each hold
	all   map[string]*hold
	queue []*hold // of which the Store is to be told or asked
	known int     // how many the Store has, as far as it has said
	full  bool    // the next call has everything, since an answer was lost

	heard time.Time // since when the Store has answered each call; zero if it did not answer the last one; only tellHolder uses it
}

// A hold is one name that this replica holds, or is about to hold or to release. It is
// forgotten when the Store does not have it and nobody wants it.
type hold struct {
	name   string
	data   []byte // for whoever inherits it
	of     stake
	wanted bool
	has    bool // the Store has it, as far as it has said
	asks   bool // the Store is to say again how the name is held
	asked  bool // the call under way asks for that
	queued bool
	sent   bool // a call about it is under way
}

// A stake is what a name is held for. Its methods are called one after the other, with no
// lock held.
type stake interface {
	answered(ctx context.Context, a heldAnswer)
	// dropped is called when the hold is forgotten.
	dropped()
}

// A heldAnswer says how a name is held.
type heldAnswer struct {
	store.HoldState
	had, has bool // this replica held it before, and holds it now
	asked    bool // it comes of ask
}

const (
	// holdPause is between two calls, so that what happens meanwhile shares the next one.
	holdPause = 20 * time.Millisecond
	// holdBatch bounds the changes of one call.
	holdBatch = 5000
	// holdCalls bounds the calls in a row.
	holdCalls = 50
	// inheritAfter is how long after it was away the Store may say that replicas are
	// dead: all of them have called by then, if they live.
	inheritAfter = 5 * time.Second
)

func (hs *holds) init() {
	hs.wake, hs.all = bell.New(), make(map[string]*hold)
}

// begin has this replica take part in what others hold: it inherits from those that
// die, though it may hold nothing itself yet.
func (hs *holds) begin() {
	if !hs.used.Swap(true) {
		hs.wake.Ring()
	}
}

// want holds a name from now on. The stake that had it before is not told any more.
func (hs *holds) want(name string, data []byte, of stake) {
	hs.begin()
	hs.mu.Lock()
	h := hs.all[name]
	var old stake
	if h == nil {
		h = &hold{name: name}
		hs.all[name] = h
	} else {
		old = h.of
	}
	h.data, h.of, h.wanted = data, of, true
	hs.queueLocked(h)
	hs.mu.Unlock()
	if old != nil {
		old.dropped()
	}
}

// release undoes want.
func (hs *holds) release(name string) {
	hs.mu.Lock()
	h := hs.all[name]
	if h == nil || !h.wanted {
		hs.mu.Unlock()
		return
	}
	h.wanted = false
	forgotten := hs.forgetLocked(h)
	if !forgotten {
		hs.queueLocked(h)
	}
	hs.mu.Unlock()
	if forgotten {
		h.of.dropped()
	}
}

// ask has the Store say how a name is held that it has already.
func (hs *holds) ask(name string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h := hs.all[name]; h != nil && h.has && h.wanted {
		h.asks = true
		hs.queueLocked(h)
	}
}

// inherit notes that the Store has a name for this replica that it did not know of. It
// is released at once, unless it is wanted: by of, or by who has come meanwhile.
func (hs *holds) inherit(name string, data []byte, of stake, wanted bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.all[name]
	if h == nil {
		h = &hold{name: name, data: data, of: of, wanted: wanted}
		hs.all[name] = h
	} else {
		defer of.dropped()
		h.asks = h.wanted // it has to hear how the name is held
	}
	hs.noteLocked(h, true)
	if !h.wanted || h.asks {
		hs.queueLocked(h)
	}
}

// distrust has the next call tell the Store everything, since it may have lost some.
func (hs *holds) distrust() {
	hs.mu.Lock()
	hs.full = true
	hs.mu.Unlock()
}

func (hs *holds) queueLocked(h *hold) {
	if h.queued {
		return
	}
	h.queued = true
	hs.queue = append(hs.queue, h)
	hs.wake.Ring()
}

// forgetLocked forgets a hold that neither the Store has nor anybody wants, and reports
// whether it did. The caller calls dropped.
func (hs *holds) forgetLocked(h *hold) bool {
	if h.wanted || h.has || h.sent {
		return false
	}
	delete(hs.all, h.name) // if it is queued, batch passes it over
	return true
}

// batch returns the changes for the next call, and what they are about.
func (hs *holds) batch() (b store.Holding, about []*hold) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	add := func(h *hold) {
		h.sent, h.asked, h.asks = true, h.asks, false
		about = append(about, h)
		b.Changes = append(b.Changes, store.HoldChange{Name: h.name, Data: h.data, Released: !h.wanted})
	}
	if hs.full {
		hs.full, b.Full = false, true
		// While the Store is down, each call is such a one, and those who come and go
		// must not pile up.
		hs.queue = slices.DeleteFunc(hs.queue, func(h *hold) bool { return hs.all[h.name] != h })
		for _, h := range hs.all {
			if h.wanted {
				add(h)
			}
		}
		return b, about // what is queued to be released comes with the next call
	}
	n := min(len(hs.queue), holdBatch)
	for _, h := range hs.queue[:n] {
		h.queued = false
		if hs.all[h.name] == h && (h.wanted != h.has || h.asks) {
			add(h)
		}
	}
	hs.queue = append([]*hold(nil), hs.queue[n:]...)
	return b, about
}

// failed puts back what batch has returned. The Store may have done it or not.
func (hs *holds) failed(about []*hold) {
	hs.mu.Lock()
	hs.full = true
	var forgotten []*hold
	for _, h := range about {
		h.sent = false
		if hs.forgetLocked(h) {
			forgotten = append(forgotten, h)
		} else if h.wanted != h.has {
			hs.queueLocked(h)
		}
	}
	hs.mu.Unlock()
	for _, h := range forgotten {
		h.of.dropped()
	}
}

// A heldNews is what a stake is to hear.
type heldNews struct {
	of     stake
	answer heldAnswer
	gone   bool // it is forgotten
}

// took notes the Store's answer. It returns what stakes are to hear of it, and the names
// that were inherited.
func (hs *holds) took(about []*hold, b store.Holding, held store.Held) (news []heldNews, inherited []store.HoldState) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for i, h := range about {
		n := heldNews{of: h.of, answer: heldAnswer{held.Changes[i], h.has, !b.Changes[i].Released, h.asked}}
		hs.noteLocked(h, n.answer.has)
		h.sent = false
		n.gone = hs.forgetLocked(h)
		if h.wanted != h.has {
			hs.queueLocked(h)
		}
		news = append(news, n)
	}
	for _, s := range held.News {
		h := hs.all[s.Name]
		switch {
		case h == nil && s.Inherited:
			inherited = append(inherited, s)
		case h == nil: // it was released meanwhile
		case s.Inherited:
			hs.noteLocked(h, true)
			if !h.wanted {
				hs.queueLocked(h)
			} else {
				news = append(news, heldNews{of: h.of, answer: heldAnswer{s, true, true, false}})
			}
		case h.has:
			news = append(news, heldNews{of: h.of, answer: heldAnswer{s, true, true, false}})
		}
	}
	return news, inherited
}

// knowAll notes the answer to a call with everything: the Store has what was sent and what
// it calls inherited, and nothing else. An event of what it has not any more was
// published by who released it, or is lost.
func (hs *holds) knowAll(about []*hold, held store.Held) {
	has := make(map[*hold]bool, len(about))
	for _, h := range about {
		has[h] = true
	}
	hs.mu.Lock()
	for _, s := range held.News {
		if h := hs.all[s.Name]; h != nil && s.Inherited {
			has[h] = true
		}
	}
	var forgotten []*hold
	for _, h := range hs.all {
		if h.has && !has[h] {
			hs.noteLocked(h, false)
			if hs.forgetLocked(h) {
				forgotten = append(forgotten, h)
			}
		}
	}
	hs.mu.Unlock()
	for _, h := range forgotten {
		h.of.dropped()
	}
}

func (hs *holds) noteLocked(h *hold, has bool) {
	switch {
	case has && !h.has:
		hs.known++
	case h.has && !has:
		hs.known--
	}
	h.has = has
}

// settled compares the number of names, and reports whether another call should follow.
func (hs *holds) settled(b store.Holding, held store.Held) (again bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if held.Total != hs.known {
		hs.full = true
		return !b.Full
	}
	return len(hs.queue) > 0 || len(held.News) > 0
}

// keepHolds tells the Store what this replica holds, and what has changed. It sleeps
// until begin is called, and ends with the hub.
func (h *Hub) keepHolds() {
	select {
	case <-h.ctx.Done():
		return
	case <-h.holds.wake:
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		h.tellHolds(h.ctx)
		backoff.Pause(h.ctx, holdPause)
		select {
		case <-h.ctx.Done():
			return
		case <-h.holds.wake:
		case <-tick.C:
		}
	}
}

// tellHolds makes calls until nothing is left to say, or until it is time to look again
// at what time alone brings. What fails is tried again in a second, with everything.
func (h *Hub) tellHolds(ctx context.Context) {
	h.endGraces(time.Now())
	h.env.occupancy.look()
	for range holdCalls {
		if !h.tellHolder(ctx) {
			return
		}
	}
	h.holds.wake.Ring()
}

// tellHolder makes one call, and reports whether another one should follow at once.
func (h *Hub) tellHolder(ctx context.Context) (again bool) {
	hs := &h.holds
	b, about := hs.batch()
	b.Inherits = !hs.heard.IsZero() && time.Since(hs.heard) >= inheritAfter
	var held store.Held
	err := h.guard("the store", func() (err error) {
		ctx, cancel := h.storeContext(ctx)
		defer cancel()
		held, err = h.store.Hold(ctx, h.opts.ReplicaID, b)
		return err
	})
	if err == nil && len(held.Changes) != len(b.Changes) {
		err = fmt.Errorf("the store's Hold answered %d changes of %d", len(held.Changes), len(b.Changes))
	}
	if err != nil {
		hs.heard = time.Time{}
		hs.failed(about)
		h.warn.storeFails(err)
		return false
	}
	if hs.heard.IsZero() {
		hs.heard = time.Now()
	}
	news, inherited := hs.took(about, b, held)
	if b.Full {
		hs.knowAll(about, held)
	}
	ctx, cancel := context.WithTimeout(ctx, besides) // for all events together: the Store has to hear from this replica
	defer cancel()
	for _, n := range news {
		n.of.answered(ctx, n.answer)
		if n.gone {
			n.of.dropped()
		}
	}
	for _, s := range inherited {
		h.inherit(s)
	}
	return hs.settled(b, held)
}

// inherit takes over a name from a dead replica.
func (h *Hub) inherit(s store.HoldState) {
	if channel, user, ok := presentUser(s.Name); ok && h.inheritUser(channel, user, s.Data) {
		return
	}
	h.holds.inherit(s.Name, nil, nobody{}, false)
}

// nobody has a stake in a name that is released.
type nobody struct{}

func (nobody) answered(context.Context, heldAnswer) {}

func (nobody) dropped() {}
