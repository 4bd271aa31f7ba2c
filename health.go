package channels

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

const (
	// lateAfter and deadAfter are how long after its last heartbeat a replica
	// is yellow, and red.
	lateAfter = 7 * time.Second
	deadAfter = store.DeadAfter
	// A canary is sent every canaryPeriod. It is late where it takes longer
	// than canaryLate, and lost where canaryMissed of them have not come back.
	canaryPeriod = 3 * time.Second
	canaryLate   = time.Second
	canaryMissed = 3
	// unlinkedLong is for how many canaries the link to a living peer may be
	// down: who is killed still seems to live for less.
	unlinkedLong = 3
	// besides bounds what is asked of the Store between two heartbeats: a part
	// of it that hangs must not make this replica seem dead.
	besides = 2 * time.Second
	// remembered is how long a replica says that it was lagging or dropping, or
	// has a twin.
	remembered = 10 * time.Second
	// canaryLog is the log in the Store to which all replicas append their
	// canaries. No channel has this name.
	canaryLog = "/canary"
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

// A canary is a message of the hub's own, of which it sees whether it comes back.
type canary struct {
	missed int           // how many in a row did not come back
	took   time.Duration // the last one
}

// judge adds what a canary says of the way that it took.
func (c canary) judge(v *verdict, way string) {
	switch {
	case c.missed >= canaryMissed:
		v.say(NodeRed, reasonLost+way)
	case c.missed > 0 || c.took > canaryLate:
		v.say(NodeYellow, "canary late: "+way)
	}
}

// A verdict is the worst status of several, with the reasons of all.
type verdict struct {
	status  NodeStatus
	reasons []string
}

func (v *verdict) say(s NodeStatus, reason string) {
	if v.status != NodeRed {
		v.status = s
	}
	v.reasons = append(v.reasons, reason)
}

const (
	reasonMissed = "heartbeats missed"
	reasonLate   = "heartbeat late"
	reasonLost   = "canary lost: "
	// While the Store takes no heartbeats, it is not those that are missed.
	reasonUnreported = "reports lost: " + wayStore
	reasonUnsure     = "report late: " + wayStore
	reasonTwin       = "same name"
	reasonElsewhere  = "another store"
	wayStore         = "store"
	wayMesh          = "mesh"
)

// ofStore tells whether a replica that gives this reason has trouble with its Store.
func ofStore(reason string) bool {
	return reason == reasonMissed || reason == reasonLate || strings.HasSuffix(reason, ": "+wayStore)
}

// verdict says how this replica is, and the error for those who come to it
// while it is red.
func (h *Hub) verdict() (verdict, error) {
	v := verdict{status: NodeGreen, reasons: []string{}}
	var unready error
	l := &h.vitals
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mesh.judge(&v, wayMesh)
	if v.status == NodeRed {
		unready = ErrMeshUnavailable
	}
	switch silent := time.Since(l.reported); {
	case silent > deadAfter:
		v.say(NodeRed, reasonUnreported)
	case silent > lateAfter:
		v.say(NodeYellow, reasonUnsure)
	}
	l.store.judge(&v, wayStore)
	if v.status == NodeRed && unready == nil {
		unready = ErrStoreUnavailable
	}
	if l.unlinked > unlinkedLong {
		v.say(NodeYellow, "link down")
	}
	if time.Since(l.twin) < remembered {
		v.say(NodeYellow, reasonTwin)
	}
	if time.Since(l.lagged) < remembered {
		v.say(NodeYellow, "lagging")
	}
	if time.Since(l.drops) < remembered {
		v.say(NodeYellow, "dropping")
	}
	if h.leaving.Load() {
		v.say(NodeYellow, "draining")
	}
	if h.clients.connections() > h.opts.MaxConnections/5*4 || h.queued.sum() > int64(h.opts.MaxQueuedBytes)/5*4 {
		v.say(NodeYellow, "loaded")
	}
	return v, unready
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

func (h *Hub) besidesContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, min(besides, h.opts.StoreTimeout))
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
	awaited, unlinked := status.Err != nil || h.around.answers(status), h.around.unlinked(status)
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
	c.Node = h.self()
	c.Node.Mesh = nil // which is long
	if err := h.control(h.ctx, "", controlCanary, c); err != nil {
		h.log.Debug("mesh: the canary", "err", err)
	}
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

// answers returns whether some peer can be expected to answer a canary: the
// Store, if it is there, has heard of it lately. Where the link to it is down,
// the Store is the only witness that it lives: who is cut off from all that do
// is lost to them.
func (a *neighbours) answers(s mesh.Status) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := time.Since(a.looked) < lateAfter // what the Store said still counts
	for _, p := range s.Peers {
		stored, known := a.stored[p.ID]
		lives := known && time.Since(stored.at) < lateAfter
		switch {
		case !p.Up:
			if asked && lives && !a.heard[p.ID].left {
				return true
			}
		case p.ID == "": // a broker: are there others behind it?
			for _, n := range a.stored {
				if asked && time.Since(n.at) < lateAfter && n.node.Mesh.overBroker() {
					return true
				}
			}
			for _, n := range a.heard {
				if !n.left && time.Since(n.at) < lateAfter {
					return true
				}
			}
		case a.heard[p.ID].left:
		case !asked || !known || lives:
			return true
		}
	}
	return false
}

// unlinked returns whether the link to a peer is down that lives, as the Store
// says: messages of channels without history do not come from it.
func (a *neighbours) unlinked(s mesh.Status) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.looked) < lateAfter && slices.ContainsFunc(s.Peers, func(p mesh.Peer) bool {
		stored, known := a.stored[p.ID]
		return !p.Up && known && time.Since(stored.at) < lateAfter && !a.heard[p.ID].left
	})
}
