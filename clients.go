package channels

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A client is one receiver: a WebSocket connection, a stream of server-sent
// events, or a Go subscriber.
type client struct {
	outbox
	hub  *Hub
	info Client
	sub  subscription

	slot, at int         // its place in the table, guarded by the table
	alive    atomic.Bool // it has given a sign of life since it was asked for one
	asked    bool        // and it was; the hub's clock alone uses it
	expiry   *time.Timer
	in, out  traffic
}

// traffic counts for a Traffic. What was written and what is read are counted
// by different goroutines.
type traffic struct{ messages, bytes atomic.Int64 }

func (t *traffic) total() Traffic { return Traffic{t.messages.Load(), t.bytes.Load()} }

// totals is the client as hooks see it, with what it has carried so far.
func (c *client) totals() Client {
	info := c.info
	info.Received, info.Sent = c.in.total(), c.out.total()
	return info
}

// inGo says that the receiver is Go code: no connection, so no hooks for one,
// no presence, no pings.
func (c *client) inGo() bool { return c.info.Transport == transportGo }

// answer sends what the hub itself says to this client. Where its channel
// drops messages for a slow subscriber, it does so for that too.
func (c *client) answer(f *frame) { c.send(f, c.sub.ch.opts.SlowSubscriber) }

func (h *Hub) initClient(c *client, owner receiver, as format, info Client) {
	c.hub, c.owner, c.info, c.format = h, owner, info, as
	c.limit, c.stats = h.opts.QueueBytes, &h.stats
	c.queued = h.queued.counter(h.spread.Add(1))
	c.sub = subscription{out: &c.outbox, id: info.ID, slot: -1}
}

// clientTable holds all clients of this replica, by id and user, and in as
// many slots as the ping period has seconds: each second, one slot is asked
// for a sign of life, so that no timer per connection is needed.
type clientTable struct {
	period int // in seconds

	mu     sync.Mutex // guards the fields below
	inGo   int        // how many of the clients are Go subscribers
	next   uint64     // the number of the next client
	byID   map[string]*client
	byUser map[string]map[*client]struct{}
	slots  [][]*client
	turn   int
}

// newID returns an id that is unique over all replicas.
func (t *clientTable) newID(node string) string {
	t.mu.Lock()
	t.next++
	n := t.next
	t.mu.Unlock()
	return node + "-" + strconv.FormatUint(n, 36)
}

func (t *clientTable) add(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = make(map[string]*client)
		t.byUser = make(map[string]map[*client]struct{})
		t.slots = make([][]*client, t.period)
	}
	t.byID[c.info.ID] = c
	if c.inGo() {
		t.inGo++
	}
	if u := c.info.Identity.ID; u != "" {
		if t.byUser[u] == nil {
			t.byUser[u] = make(map[*client]struct{})
		}
		t.byUser[u][c] = struct{}{}
	}
	c.slot = len(t.byID) % len(t.slots)
	c.at = len(t.slots[c.slot])
	t.slots[c.slot] = append(t.slots[c.slot], c)
}

func (t *clientTable) remove(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[c.info.ID] != c {
		return
	}
	delete(t.byID, c.info.ID)
	if c.inGo() {
		t.inGo--
	}
	if u := c.info.Identity.ID; u != "" {
		delete(t.byUser[u], c)
		if len(t.byUser[u]) == 0 {
			delete(t.byUser, u)
		}
	}
	s := t.slots[c.slot]
	last := len(s) - 1
	s[c.at] = s[last]
	s[c.at].at = c.at
	s[last] = nil
	t.slots[c.slot] = s[:last]
}

func (t *clientTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// connections counts the clients that are not Go subscribers.
func (t *clientTable) connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID) - t.inGo
}

// all returns the clients that pick chooses; nil chooses all.
func (t *clientTable) all(pick func(*client) bool) []*client {
	t.mu.Lock()
	defer t.mu.Unlock()
	cs := make([]*client, 0, len(t.byID))
	for _, c := range t.byID {
		if pick == nil || pick(c) {
			cs = append(cs, c)
		}
	}
	return cs
}

// find returns the client with an id, and the clients of a user.
func (t *clientTable) find(idOrUser string) []*client {
	t.mu.Lock()
	defer t.mu.Unlock()
	var cs []*client
	if c := t.byID[idOrUser]; c != nil {
		cs = append(cs, c)
	}
	for c := range t.byUser[idOrUser] {
		cs = append(cs, c)
	}
	return cs
}

// pingSome asks the clients of one slot for a sign of life, and cuts those
// that have given none since they were asked a period ago.
func (t *clientTable) pingSome() {
	t.mu.Lock()
	if t.slots == nil {
		t.mu.Unlock()
		return
	}
	t.turn = (t.turn + 1) % len(t.slots)
	cs := append([]*client(nil), t.slots[t.turn]...)
	t.mu.Unlock()
	for _, c := range cs {
		switch {
		case c.inGo():
		case c.info.Transport == transportWebSocket && c.asked && !c.alive.Load():
			c.owner.kill(errSilent)
		default:
			// Behind messages that wait, a ping would reach a slow reader too
			// late; there the writes' own deadline finds out who is gone.
			c.alive.Store(false)
			c.asked = c.sendIfIdle(pingFrame)
		}
	}
}
