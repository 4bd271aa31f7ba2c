package channels

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/store"
)

// counters are the hub's totals since it was started.
type counters struct {
	published, slow, connects, deflated atomic.Int64
	// dropped and superseded are messages that slow subscribers did not get;
	// the latter in favour of a newer one, as SlowKeepLatest wants it.
	dropped, superseded atomic.Int64

	badPackets atomic.Int64 // that the mesh has brought

	pressed atomic.Bool // a queue is more than half full
}

// Stats are a hub's totals since New, and what it holds now.
type Stats struct {
	Connections int   `json:"connections"` // WebSocket, server-sent events, and Go subscribers
	Channels    int   `json:"channels"`    // on this replica
	Connects    int64 `json:"connects"`
	Published   int64 `json:"published"` // through this replica
	Dropped     int64 `json:"dropped"`   // messages, by SlowDropOldest and SlowKeepLatest
	SlowClosed  int64 `json:"slow_closed"`
	Queued      int64 `json:"queued"`                // bytes that wait in all queues; a message in many of them counts once
	Deflated    int64 `json:"deflated"`              // messages, each once for all its receivers
	BadPackets  int64 `json:"bad_packets,omitempty"` // from other replicas: what cannot be a message is dropped
}

// Stats returns the hub's numbers at this moment.
func (h *Hub) Stats() Stats {
	return Stats{
		Connections: h.clients.count(),
		Channels:    int(h.channels.n.Load()),
		Connects:    h.stats.connects.Load(),
		Published:   h.stats.published.Load(),
		Dropped:     h.stats.dropped.Load() + h.stats.superseded.Load(),
		SlowClosed:  h.stats.slow.Load(),
		Queued:      h.queued.sum(),
		Deflated:    h.stats.deflated.Load(),
		BadPackets:  h.stats.badPackets.Load(),
	}
}

// A reporter tells the Store what has changed: once a second, and before
// this replica reads a list, so that one sees what one did.
type reporter struct {
	full bool // the Store knows nothing of us; sendAll's own

	mu       sync.Mutex // guards the fields below
	running  bool       // sendAll is at work
	next     *flight    // the report that it makes next, if anybody waits for one
	dirty    []*channel // their numbers have changed since the last report
	hot      []*channel // had publishes within the last 60 s, or are to be freed
	presence []store.PresenceChange
	lost     bool // too many presence changes wait: send all of it
}

// A flight is a report that some callers wait for.
type flight struct {
	always bool          // guarded by reporter.mu
	err    error         // valid when done is closed
	done   chan struct{} // closed when it is made
}

// maxPresenceChanges bounds what waits for a Store that is down.
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

// tick is the hub's clock: once a second it asks some connections for a sign
// of life, and lets rates fall. It waits for nobody, and ends with the hub.
func (h *Hub) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.clients.pingSome()
			h.cool()
			h.countDrops()
			h.unfinished.expire()
			h.warnUnfinished()
		}
	}
}

// reportEachSecond keeps the Store informed: that is the heartbeat. Now and then
// it asks for the other replicas', and sends a canary. It ends with the hub.
func (h *Hub) reportEachSecond() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			if h.mesh != nil && n%lookEvery == 0 {
				h.lookAround() // before the heartbeat: who else has reported under this name?
			}
			err := h.flush(h.ctx, true)
			if h.ctx.Err() == nil {
				h.reported.Store(true)
				if h.storeBad.Swap(err != nil) && err == nil && h.storeWarned.Swap(0) > 0 {
					h.log.Info("the store is back")
				}
			}
			if err != nil {
				h.warnStore(err)
			}
			if n%int(canaryPeriod/time.Second) == 0 {
				h.storeCanary()
			}
		}
	}
}

// lookEvery is how many seconds pass between two looks at who is there.
const lookEvery = 2

// cool lets rates fall, and frees the channels that nothing needs.
func (h *Hub) cool() {
	r := &h.report
	r.mu.Lock()
	hot := r.hot
	r.hot = nil
	r.mu.Unlock()
	kept := hot[:0]
	for _, ch := range hot {
		ch.mu.Lock()
		if c := ch.countLocked(); c != ch.reported && !ch.dirty {
			ch.dirty = true
			r.touch(ch, true, false)
		}
		stays := !ch.freed && (ch.rate != nil || ch.dirty || len(ch.subs) == 0)
		if !stays {
			ch.hot = false
		}
		ch.mu.Unlock()
		if stays && !h.channels.free(ch) {
			kept = append(kept, ch)
		}
	}
	r.mu.Lock()
	r.hot = append(r.hot, kept...)
	r.mu.Unlock()
}

// flush sends what has changed to the Store; with always, the heartbeat too
// where nothing has. What could not be sent stays to be sent. Callers that
// come while a report is under way share the next one.
//
// ctx bounds the waiting, not the report: one that is broken off has to be
// followed by one of everything.
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
	if start && !h.background(h.sendAll) {
		h.land(ErrClosed)
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ErrStoreUnavailable.because(ctx.Err())
	}
}

// sendAll makes reports while somebody waits for one. It is a task of the hub.
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
			r.full = true // some of it may have arrived: the next report settles it
		}
		close(f.done)
	}
}

// land ends the waiting where no report is made any more.
func (h *Hub) land(err error) {
	r := &h.report
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.next; f != nil {
		f.err = err
		close(f.done)
	}
	r.next, r.running = nil, false
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
		report := store.Report{Node: h.node(), Full: r.full, Channels: h.counts(dirty)}
		if r.full {
			report.Channels, report.Members = h.everything()
			presence = nil
		}
		known, err := h.store.Report(ctx, report)
		if err == nil && !known && !r.full {
			r.full = true // the Store has forgotten us
			continue
		}
		if err == nil && len(presence) > 0 {
			err = h.store.UpdatePresence(ctx, h.opts.Node, presence)
		}
		if err != nil {
			return ErrStoreUnavailable.because(err)
		}
		r.full = false
		h.vitals.report()
		return nil
	}
}

// counts takes the numbers of channels for a report.
func (h *Hub) counts(chs []*channel) []store.Count {
	counts := make([]store.Count, 0, len(chs))
	for _, ch := range chs {
		ch.mu.Lock()
		c := ch.countLocked()
		ch.dirty, ch.reported = false, c
		freed := ch.freed
		ch.mu.Unlock()
		if freed { // it made way for another
			if again := h.channels.use(ch.name); again != nil {
				again.release()
				continue // whose numbers are told
			}
		}
		counts = append(counts, c)
	}
	return counts
}

// everything is what a Store must know that knows nothing of this replica.
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

// warnStore logs that the store fails, at most once a minute until it is back:
// many channels may notice at once.
func (h *Hub) warnStore(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) { // it is the hub that ends
		return
	}
	now := h.uptime() + 1 // 0 is never
	last := h.storeWarned.Load()
	if (last == 0 || now-last >= 60) && h.storeWarned.CompareAndSwap(last, now) {
		h.log.Warn("the store fails; what needs it is refused until it is back", "err", err)
	}
}
