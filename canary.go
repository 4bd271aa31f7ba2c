package channels

import (
	"errors"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

const (
	// A canary is sent every canaryPeriod. It is late where it takes longer
	// than canaryLate, and lost where canaryMissed of them have not come back.
	canaryPeriod = 3 * time.Second
	canaryLate   = time.Second
	canaryMissed = 3
	// canaryLog is the log in the Store to which all replicas append their
	// canaries. No channel has this name.
	canaryLog = "/canary"
)

// A canary is a message of the hub's own, of which it sees whether it comes back.
type canary struct {
	missed int           // how many in a row did not come back
	took   time.Duration // the last one
}

// judge adds what a canary says of the way that it took.
func (c canary) judge(v *verdict, way string) {
	switch {
	case c.missed >= canaryMissed:
		v.say(ReplicaRed, reasonLost+way)
	case c.missed > 0 || c.took > canaryLate:
		v.say(ReplicaYellow, "canary late: "+way)
	}
}

// storeCanary appends to the Store, as a publish does.
func (h *Hub) storeCanary() {
	ctx, cancel := h.besidesContext()
	defer cancel()
	begin := time.Now()
	var pos store.Position
	err := h.guard("the store", func() (err error) {
		pos, _, err = h.store.Append(ctx, canaryLog, store.Entry{Header: "canary", Body: []byte("null")}, store.AppendOptions{Size: 1, TTL: time.Minute})
		return err
	})
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case h.ctx.Err() != nil:
	case err != nil:
		l.store.missed++
	default:
		l.store, l.epoch = canary{took: time.Since(begin)}, pos.Epoch
	}
}

// An echo is an answer to another replica's canary.
type echo struct {
	to string
	n  uint64
}

// maxEchoes bounds the canaries that wait for their answers.
const maxEchoes = 256

// pulse sends canaries through the mesh, and answers those of others, until
// the hub is shut down.
func (h *Hub) pulse() {
	t := time.NewTicker(canaryPeriod)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.meshCanary()
		case e := <-h.echoes:
			h.control(h.ctx, e.to, controlEcho, control{N: e.n}) // who misses it says so
		}
	}
}

// meshCanary notes what became of the last canary, and sends the next one.
func (h *Hub) meshCanary() {
	status := h.mesh.Status()
	if errors.Is(status.Err, mesh.ErrTwin) { // which keeps it from nobody else
		h.meetTwin()
		status.Err = nil
	}
	awaited, unlinked := status.Err != nil || h.others.answers(status), h.others.unlinked(status)
	l := &h.vitals
	l.mu.Lock()
	switch {
	case l.answered: // echoed has noted it
	case l.awaited && awaited:
		l.mesh.missed++
		l.cutOff = !l.linked
	default: // nobody was there, or it has stopped: that is not this replica's fault
		l.mesh = canary{}
	}
	l.n++
	l.sent[l.n%uint64(len(l.sent))] = time.Now()
	l.answered, l.awaited = false, awaited
	if l.unlinked++; !unlinked {
		l.unlinked = 0
	}
	l.linked = slices.ContainsFunc(status.Peers, func(p mesh.Peer) bool { return p.Up })
	c := control{N: l.n, Epoch: l.epoch}
	l.mu.Unlock()
	self := h.self().json()
	self.Mesh = nil // it is long
	c.Replica = &self
	if err := h.control(h.ctx, "", controlCanary, c); err != nil {
		h.log.Debug("mesh: the canary", "err", err)
	}
}
