package channels

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

const (
	// A canary is sent every canaryPeriod. It is late if it takes longer than
	// canaryLate, and lost if canaryMissed in a row have not come back.
	canaryPeriod = 3 * time.Second
	canaryLate   = time.Second
	canaryMissed = 3
	// canaryLog is the log in the Store to which all replicas append their
	// canaries. No channel has this name.
	canaryLog = "/canary"
)

// A canary is a message of the hub's own that goes through the real Store or Mesh.
// It shows whether messages come through.
type canary struct {
	missed int           // how many in a row have not come back
	took   time.Duration // how long the last one took
	at     time.Time     // when the last one came back
	canaryCounts
}

// canaryCounts are totals, which go on when the rest is forgotten.
type canaryCounts struct {
	sent, lost int64
	last       time.Duration // how long the last one took that has come back
}

// back notes that one has come back.
func (c *canary) back(took time.Duration) {
	c.missed, c.took, c.last, c.at = 0, took, took, time.Now()
}

// miss notes that one has not come back in time.
func (c *canary) miss() {
	c.missed++
	c.lost++
}

// isLate reports whether the last one came late, or not at all.
func (c *canary) isLate() bool { return c.missed > 0 || c.took > canaryLate }

// judge adds to a verdict what the canaries say of the Store or the Mesh.
func (c canary) judge(v *Replica, way string) {
	switch {
	case c.missed >= canaryMissed:
		v.say(ReplicaRed, reasonLost+way)
	case c.isLate():
		v.say(ReplicaYellow, reasonSlow+way)
	}
}

// storeCanary sends the Store a canary: it appends a message, as a publish does.
func (h *Hub) storeCanary() {
	ctx, cancel := h.besidesContext()
	defer cancel()
	begin := time.Now()
	var done store.Appended
	err := h.guard("the store", func() (err error) {
		done, err = h.store.Append(ctx, canaryLog, store.Entry{Header: "canary", Body: []byte("null")}, store.AppendOptions{Size: 1, TTL: time.Minute})
		return err
	})
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	l.store.sent++
	switch {
	case h.ctx.Err() != nil:
	case err != nil:
		l.store.miss()
	default:
		l.store.back(time.Since(begin))
		l.epoch = done.Position.Epoch
	}
}

// pulse sends canaries through the mesh and answers those of others, and their other
// questions, until the hub is shut down.
func (h *Hub) pulse() {
	t := time.NewTicker(canaryPeriod)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.meshCanary()
		case l := <-h.letters:
			h.control(h.ctx, l.to, l.header, l.control)
		}
	}
}

// meshCanary notes what became of the last canary, and sends the next one.
func (h *Hub) meshCanary() {
	status := h.mesh.Status()
	if errors.Is(status.Err, mesh.ErrTwin) { // the mesh works all the same
		h.meetTwin()
		status.Err = nil
	}
	// A link that is down excuses no missing canary: a replica that reaches none of the
	// living ones has to turn red.
	unlinked := h.others.unlinked(status)
	awaited := status.Err != nil || unlinked || h.others.canaryExpected(status)
	l := &h.vitals
	l.mu.Lock()
	switch {
	case l.answered: // echoed has noted it
	case l.awaited && awaited:
		l.mesh.miss()
		l.cutOff = !l.linked
	default: // there was no replica to answer, or it has stopped: not this one's fault
		l.mesh.missed, l.mesh.took = 0, 0
	}
	l.n++
	l.mesh.sent++
	l.sent[l.n%uint64(len(l.sent))] = time.Now()
	l.answered, l.awaited = false, awaited
	if l.unlinked++; !unlinked {
		l.unlinked = 0
	}
	l.linked = slices.ContainsFunc(status.Peers, func(p mesh.Peer) bool { return p.Up })
	n := l.n
	l.mu.Unlock()
	h.sendCanary(n)
}

// noEcho is the number of a canary whose echo counts for nothing.
const noEcho = math.MaxUint64

// sayNow tells the other replicas at once what this one is like.
func (h *Hub) sayNow() {
	if h.mesh != nil {
		h.sendCanary(noEcho)
	}
}

func (h *Hub) sendCanary(n uint64) {
	l := &h.vitals
	l.mu.Lock()
	c := control{N: n, Epoch: l.epoch}
	l.mu.Unlock()
	self := h.self().json()
	if !h.store.memory {
		self.Mesh = nil // it is long, and in the heartbeats
	}
	c.Replica = &self
	if err := h.control(h.ctx, "", controlCanary, c); err != nil {
		h.log.Debug("mesh: the canary", "err", err)
	}
}
