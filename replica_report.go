package channels

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/channels-go/channels/store"
)

// A reporter collects what has changed, for the next report to the Store. There is
// one each second, and one before this replica reads a list, so that callers see
// the effect of their own calls.
type reporter struct {
	full bool // the next report has to have everything; only sendAll uses it

	mu       sync.Mutex // guards the fields below
	running  bool       // sendAll is at work
	next     *flight    // the next report, if a caller waits for it
	dirty    []*channel // whose numbers have changed since the last report
	hot      []*channel // that had publishes within the last 60 s, or may be freed
	presence []store.PresenceChange
	lost     bool // too many changes waited: the next report has all members
}

// A flight is a report that callers wait for.
type flight struct {
	always bool          // guarded by reporter.mu
	err    error         // valid when done is closed
	done   chan struct{} // closed when the report was made
}

// reportEachSecond reports to the Store, which is this replica's heartbeat. Every
// few seconds it also asks for the other replicas and sends the Store a canary. It
// ends with the hub.
func (h *Hub) reportEachSecond() {
	n := -1
	var said Replica
	h.every(time.Second, func() {
		n++
		if h.mesh != nil && n%lookEvery == 0 {
			h.lookAround() // before the heartbeat, to find another replica with this id
		}
		err := h.flush(h.ctx, true)
		if h.ctx.Err() == nil {
			h.reported.Store(true)
			if h.storeBad.Swap(err != nil) && err == nil {
				h.warn.storeIsBack()
			}
		}
		if err != nil {
			h.warn.storeFails(err)
		}
		if n%int(canaryPeriod/time.Second) == 0 {
			h.storeCanary()
		}
		if now, _ := h.verdict(); h.store.memory && (now.Status != said.Status || !slices.Equal(now.Reasons, said.Reasons)) {
			said = now
			h.sayNow() // nobody sees it in the Store
		}
	})
}

// lookEvery is how often the Store is asked for the other replicas, in seconds.
const lookEvery = 2

// maxPresenceChanges bounds the changes that wait while the Store is down.
const maxPresenceChanges = 10_000

func (r *reporter) touch(ch *channel, dirty, hot bool) {
	r.mu.Lock()
	if dirty {
		r.dirty = append(r.dirty, ch)
	}
	if hot {
		r.hot = append(r.hot, ch)
	}
	r.mu.Unlock()
}

func (r *reporter) changePresence(c store.PresenceChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.presence) >= maxPresenceChanges {
		r.presence, r.lost = nil, true
	}
	if !r.lost {
		r.presence = append(r.presence, c)
	}
}

// flush reports to the Store what has changed. With always, it reports even if
// nothing has, which is a heartbeat. What cannot be sent is sent later. Callers
// that come while a report is under way share the next one.
//
// ctx bounds the wait, but not the report: after a report that was cancelled,
// the next one would have to be a full one.
func (h *Hub) flush(ctx context.Context, always bool) error {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	r := &h.report
	r.mu.Lock()
	if r.next == nil {
		r.next = &flight{done: make(chan struct{})}
	}
	f := r.next
	f.always = f.always || always
	start := !r.running
	r.running = true
	r.mu.Unlock()
	if start && !h.tasks.Run(h.sendAll) { // the hub has ended: nobody makes the report
		r.mu.Lock()
		r.next, r.running = nil, false
		r.mu.Unlock()
		f.err = ErrClosed
		close(f.done)
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ErrStoreUnavailable.because(ctx.Err())
	}
}

// sendAll makes reports as long as a caller waits for one. It is a task of the hub.
func (h *Hub) sendAll() {
	for r := &h.report; ; {
		r.mu.Lock()
		f := r.next
		r.next, r.running = nil, f != nil
		r.mu.Unlock()
		if f == nil {
			return
		}
		f.err = h.guard("the store", func() error { return h.send(f.always) })
		if f.err != nil {
			r.full = true // part of it may have arrived, so the next report has everything
		}
		close(f.done)
	}
}

// send makes one report. Only sendAll calls it.
func (h *Hub) send(always bool) error {
	r := &h.report
	ctx, cancel := h.storeContext(h.ctx)
	defer cancel()
	r.mu.Lock()
	dirty, presence := r.dirty, r.presence
	r.dirty, r.presence = nil, nil
	r.full = r.full || r.lost
	r.lost = false
	r.mu.Unlock()
	if !always && !r.full && len(dirty) == 0 && len(presence) == 0 {
		return nil
	}
	for {
		report := store.Report{Replica: h.heartbeatRecord(), Full: r.full, Channels: h.counts(dirty)}
		if r.full {
			report.Channels, report.Members = h.everything()
			presence = nil
		}
		known, err := h.store.Report(ctx, report)
		if err == nil && !known && !r.full {
			r.full = true // the Store has forgotten this replica
			h.holds.distrust()
			continue
		}
		if err == nil && len(presence) > 0 {
			err = h.store.UpdatePresence(ctx, h.opts.ReplicaID, presence)
		}
		if err != nil {
			return ErrStoreUnavailable.because(err)
		}
		r.full = false
		h.vitals.report()
		return nil
	}
}

// counts returns the numbers of channels for a report, and marks them as reported.
func (h *Hub) counts(chs []*channel) []store.Count {
	counts := make([]store.Count, 0, len(chs))
	for _, ch := range chs {
		ch.mu.Lock()
		c := ch.countLocked()
		ch.dirty, ch.reported = false, c
		freed := ch.freed
		ch.mu.Unlock()
		if freed { // the channel made way for another
			if again := h.channels.use(ch.name); again != nil {
				again.release()
				continue // it is there again, and reports its own numbers
			}
		}
		counts = append(counts, c)
	}
	return counts
}

// everything returns the numbers and members of all channels, for a full report.
func (h *Hub) everything() ([]store.Count, []store.PresenceChange) {
	var counts []store.Count
	var presence []store.PresenceChange
	h.channels.all(func(ch *channel) {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		c := ch.countLocked()
		ch.reported = c
		if c.Subscribers > 0 || c.Publishes > 0 {
			counts = append(counts, c)
		}
		for _, m := range ch.members {
			presence = append(presence, store.PresenceChange{Channel: ch.name, Member: store.Member(m)})
		}
	})
	return counts, presence
}
