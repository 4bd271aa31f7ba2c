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
	changed  []*channel // dueNext
	busy     []*channel // dueInTurn; those that are not any more stay until their turn
	pace     int        // how many of busy have their turn in a report
	hot      []*channel // had publishes within the last 60 s, or may be freed
	presence []store.PresenceChange
	lost     bool // too many changes waited: the next report has all members
}

// due says which report has a channel's numbers. It is ordered by urgency.
type due uint8

const (
	notDue    due = iota // they have not changed since the last one
	dueInTurn            // publishes on a channel that is in the list already
	dueNext
)

// share is how many of n channels have their turn in a second: a fifth, or 1,000 if that
// is more. Each is some cache misses, and together they would hold up the publishes.
func share(n int) int { return min(n, max(1000, (n+4)/5)) }

// A flight is a report that callers wait for. Until it is under way, always and all are
// guarded by reporter.mu.
type flight struct {
	always bool          // even if nothing has changed
	all    bool          // with the numbers of all busy channels
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

// touch puts a channel, which is locked, on the lists that it is missing from.
func (r *reporter) touch(ch *channel, when due, hot bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if when > ch.due {
		ch.due = when
		if when == dueNext {
			r.changed = append(r.changed, ch)
		} else {
			r.busy = append(r.busy, ch)
		}
	}
	if hot {
		r.hot = append(r.hot, ch)
	}
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

// flush reports to the Store what has changed, for a caller who reads it then. With
// heartbeat, it reports even if nothing has, and busy channels take turns. What cannot be
// sent is sent later. Callers that come while a report is under way share the next one.
//
// ctx bounds the wait, but not the report: after a report that was cancelled,
// the next one would have to be a full one.
func (h *Hub) flush(ctx context.Context, heartbeat bool) error {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	r := &h.report
	r.mu.Lock()
	if r.next == nil {
		r.next = &flight{done: make(chan struct{})}
	}
	f := r.next
	f.always, f.all = f.always || heartbeat, f.all || !heartbeat
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
		f.err = h.guard("the store", func() error { return h.send(f.always, f.all) })
		if f.err != nil {
			r.full = true // part of it may have arrived, so the next report has everything
		}
		close(f.done)
	}
}

// send makes one report. Only sendAll calls it.
func (h *Hub) send(always, all bool) error {
	r := &h.report
	ctx, cancel := h.storeContext(h.ctx)
	defer cancel()
	r.mu.Lock()
	changed, presence := r.changed, r.presence
	r.changed, r.presence = nil, nil
	n := len(r.busy)
	r.pace = max(r.pace, share(n)) // not less as they become fewer, or the last would wait long
	if !all {
		n = min(n, r.pace)
	}
	busy := r.busy[:n:n]
	if r.busy = r.busy[n:]; len(r.busy) == 0 {
		r.busy, r.pace = nil, 0
	}
	r.full = r.full || r.lost
	r.lost = false
	r.mu.Unlock()
	changed = append(changed, busy...)
	clear(busy)
	if !always && !r.full && len(changed) == 0 && len(presence) == 0 {
		return nil
	}
	for {
		report := store.Report{Replica: h.heartbeatRecord(), Full: r.full, Channels: h.counts(changed)}
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
		if ch.due == notDue { // it was on both lists, and has been reported
			ch.mu.Unlock()
			continue
		}
		c := ch.countLocked()
		ch.due, ch.reported = notDue, c
		freed := ch.freed
		ch.mu.Unlock()
		if freed { // the channel made way for another
			if again := h.channels.use(ch.name); again != nil {
				again.release()
				continue // it is there again, and reports its own numbers
			}
		}
		counts = append(counts, ch.count(c))
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
		if c != (numbers{}) {
			counts = append(counts, ch.count(c))
		}
		for _, m := range ch.members {
			presence = append(presence, store.PresenceChange{Channel: ch.name, Member: store.Member(m)})
		}
	})
	return counts, presence
}
