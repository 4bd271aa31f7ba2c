package channels

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/internal/replica"
)

// clientTable holds all clients of this replica, by id and user, and spread over slots of
// the ping period. One slot after the other is asked for a sign of life, so that no timer
// per connection is needed.
//
// A client is found by its id and user. Its slot is -1 while it is being let in, and
// below -1 while it is a session that has not yet said connect: then it is in fresh.
type clientTable struct {
	prefix    string        // of all ids
	heartbeat *fanout.Frame // for clients that want to see a ping

	mu       sync.Mutex // guards the fields below
	next     uint64     // the number of the next client
	byID     map[string]*client
	byUser   map[string]map[*client]struct{}
	entering int           // how many are being let in
	inGo     int           // how many are Go subscribers
	through  [numDoors]int // how many of those that were let in have come by each door
	slots    [][]*client
	turn     int
	rides    int  // how many slots later a ping goes that no message has taken along; set by init
	bans     *ban // the end of the list: its user is the next one

	// fresh are the sessions that have not said connect, by the second in which they
	// came.
	fresh  [connectTime + 1][]*client
	second int
}

// slotsPerSecond is how often some clients are pinged. All pings of a second at once, and
// then their answers, would hold up messages.
const slotsPerSecond = 10

// answerTime is how many turns after the last in which its ping goes a client is heard. Most
// are near enough to have answered.
const answerTime = 3

// A ban is a user whose connections were all ended. The bans are a linked list. A session
// notes the list's end before it is authenticated, since its user is not known yet, and
// looks at the bans that have followed when it is. Older ones are garbage-collected.
type ban struct {
	user string // set with next
	next *ban
}

// init prepares the table. Ids have a random part for each start of the hub: with a
// fixed Options.ReplicaID, an id kept from before a restart could otherwise be a
// stranger's.
func (t *clientTable) init(id string, period time.Duration) {
	t.prefix = id + "-" + replica.NewID()[:6] + "-"
	t.heartbeat = newHeartbeatFrame(period)
	t.byID = make(map[string]*client)
	t.byUser = make(map[string]map[*client]struct{})
	t.slots = make([][]*client, slotsPerSecond*int(period/time.Second))
	t.rides = min(2*slotsPerSecond, len(t.slots)/10)
	t.bans = &ban{}
}

// newID returns an id that is unique over all replicas, and over their restarts.
func (t *clientTable) newID() string {
	t.mu.Lock()
	t.next++
	n := t.next
	t.mu.Unlock()
	var id [64]byte
	return string(strconv.AppendUint(append(id[:0], t.prefix...), n, 36))
}

// expect makes a client findable that is being let in. add or remove follows.
func (t *clientTable) expect(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entering++
	c.slot = -1
	t.byID[c.info.ID] = c
	if c.inGo() {
		t.inGo++
	}
	t.addUserLocked(c, c.info.Identity.ID)
}

// await gives a session that is expected the time to say connect. It may be called
// again after heard.
func (t *clientTable) await(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[c.info.ID] != c {
		return
	}
	c.slot = -2 - int32(t.second)
	c.at = int32(len(t.fresh[t.second]))
	t.fresh[t.second] = append(t.fresh[t.second], c)
}

// heard says that a session has said connect.
func (t *clientTable) heard(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.slot < -1 {
		t.unplaceLocked(c)
	}
}

// lastBan is for identify, from before the app is asked who somebody is.
func (t *clientTable) lastBan() *ban {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bans
}

// ban keeps out the sessions of a user that are not known to be that user's yet. find
// follows, for the others.
func (t *clientTable) ban(user string) {
	if user == "" { // nobody's
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bans.user, t.bans.next = user, &ban{}
	t.bans = t.bans.next
}

// identify makes a session another user's. set sets its Identity. If the user was
// banned since, nothing changes and identify returns false.
func (t *clientTable) identify(c *client, user string, since *ban, set func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; since != t.bans; since = since.next {
		if since.user == user {
			return false
		}
	}
	was := c.info.Identity.ID
	set()
	if t.byID[c.info.ID] == c && was != user {
		t.forgetUserLocked(c, was)
		t.addUserLocked(c, user)
	}
	return true
}

func (t *clientTable) addUserLocked(c *client, user string) {
	if user == "" {
		return
	}
	if t.byUser[user] == nil {
		t.byUser[user] = make(map[*client]struct{})
	}
	t.byUser[user][c] = struct{}{}
}

func (t *clientTable) forgetUserLocked(c *client, user string) {
	if user == "" {
		return
	}
	delete(t.byUser[user], c)
	if len(t.byUser[user]) == 0 {
		delete(t.byUser, user)
	}
}

// stale returns the sessions whose time for a connect is over. It is called once a
// second.
func (t *clientTable) stale() []*client {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.second = (t.second + 1) % len(t.fresh)
	cs := t.fresh[t.second]
	t.fresh[t.second] = nil
	for _, c := range cs {
		c.slot = -1
	}
	return cs
}

// add makes a client that was expected one of the hub's.
func (t *clientTable) add(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[c.info.ID] != c {
		return
	}
	t.unplaceLocked(c)
	t.entering--
	// One for each second, and then again: so the first ping to a client of a hub that has
	// just begun does not come before anything else.
	period := uint64(len(t.slots) / slotsPerSecond)
	c.slot = int32(slotsPerSecond*(t.next%period) + t.next/period%slotsPerSecond)
	c.at = int32(len(t.slots[c.slot]))
	t.slots[c.slot] = append(t.slots[c.slot], c)
	t.through[c.door()]++
}

// withID returns the client with an id, or nil.
func (t *clientTable) withID(id string) *client {
	if id == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
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
	t.forgetUserLocked(c, c.info.Identity.ID)
	if c.slot < 0 {
		t.entering--
	} else {
		t.through[c.door()]--
	}
	t.unplaceLocked(c)
}

// unplaceLocked takes a client out of its slot, if it has one.
func (t *clientTable) unplaceLocked(c *client) {
	var in *[]*client
	switch {
	case c.slot >= 0:
		in = &t.slots[c.slot]
	case c.slot < -1:
		in = &t.fresh[-2-c.slot]
	default:
		return
	}
	s := *in
	last := len(s) - 1
	s[c.at] = s[last]
	s[c.at].at = c.at
	s[last] = nil
	*in = s[:last]
	c.slot = -1
}

func (t *clientTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID) - t.entering
}

// byDoor counts the clients by the door that they came by.
func (t *clientTable) byDoor() [numDoors]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.through
}

// connections counts the clients that are not Go subscribers, including those that
// are being let in.
func (t *clientTable) connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID) - t.inGo
}

// all returns the clients that are being let in, and the others.
func (t *clientTable) all() (entering, settled []*client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	settled = make([]*client, 0, len(t.byID))
	for _, c := range t.byID {
		if c.slot < 0 {
			entering = append(entering, c)
		} else {
			settled = append(settled, c)
		}
	}
	return entering, settled
}

// find returns the client with an id, or the clients of a user, as kind says. It
// includes those that are being let in.
func (t *clientTable) find(kind, who string) []*client {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch c := t.byID[who]; {
	case kind == kindUser:
		return slices.Collect(maps.Keys(t.byUser[who]))
	case kind == kindClient && c != nil:
		return []*client{c}
	}
	return nil
}

// connected returns the connections of a user that were let in.
func (t *clientTable) connected(user string) (cs []*client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.byUser[user] {
		if c.slot >= 0 && !c.inGo() {
			cs = append(cs, c)
		}
	}
	return cs
}

// pingSome asks the clients of one slot for a sign of life, and cuts those
// that have given none since they were asked a period ago. A WebSocket's ping waits for a
// message to go with, and until the turn of a later slot at most: a ping of its own costs as
// much as a message. Soon after that, those that have answered are heard: see
// internal/fanout/muffle.go.
func (t *clientTable) pingSome() {
	t.mu.Lock()
	t.turn = (t.turn + 1) % len(t.slots)
	cs := t.slotLocked(0)
	waited := t.slotLocked(t.rides)
	answer := t.slotLocked(t.rides + answerTime)
	t.mu.Unlock()
	for _, c := range waited {
		if c.asked {
			c.out.Flush()
		}
	}
	for _, c := range answer {
		if c.asked {
			c.out.Hear()
		}
	}
	for _, c := range cs {
		switch {
		case c.inGo():
		case c.session != nil:
			c.session.ping()
		case c.info.Transport != transportWebSocket:
			c.out.SendIfIdle(t.pingOf(c))
		case c.asked && !c.lives():
			c.out.Cut(errSilent)
		default:
			// Behind messages that wait, a ping would reach a slow reader too
			// late. There, the writes' own deadline finds a client that is gone.
			c.alive.Store(false)
			c.asked = c.out.Ride(t.pingOf(c))
		}
	}
}

// lives reports whether a client has given a sign of life, of which a late pong may be one.
func (c *client) lives() bool {
	c.out.Hear()
	return c.alive.Load()
}

// slotLocked returns the clients whose turn was so many turns ago.
func (t *clientTable) slotLocked(ago int) []*client {
	return slices.Clone(t.slots[(t.turn+len(t.slots)-ago)%len(t.slots)])
}

func (t *clientTable) pingOf(c *client) *fanout.Frame {
	if c.heartbeat {
		return t.heartbeat
	}
	return fanout.Ping
}
