package channels

import (
	"container/heap"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/store"
)

// Presence by user. The Store has each connection as a member, as it has without
// PresenceByUser, and Hub.Presence shows one for each user. For joins and leaves, a
// replica with connections of a user holds a name for it (holds.go): the first one to
// hold it says that the user has joined, and the last one that the user has left. A
// replica goes on to hold it for PresenceGrace, and if that replica ends meanwhile,
// another one inherits it.

// A person is a user in a channel, with all connections of that user here.
type person struct {
	ch   *channel
	user string

	// Guarded by ch.mu.
	here  int       // connections
	last  Member    // the last of them that came or, if here is 0, that left: the list still shows it
	until time.Time // if here is 0: when the user has left

	// Guarded by graces.mu.
	place int // in the heap, from 1; 0: it is not in it
	at    time.Time
}

func userName(channel, user string) string { return "p" + channel + "\x00" + user }

// presentUser undoes userName.
func presentUser(name string) (channel, user string, ok bool) {
	if !strings.HasPrefix(name, "p") {
		return "", "", false
	}
	return strings.Cut(name[1:], "\x00")
}

// byUser reports whether a member counts as its user.
func (ch *channel) byUser(m *Member) bool { return ch.people != nil && m.User != "" }

// arriveLocked makes one more connection of a user a member.
func (h *Hub) arriveLocked(ch *channel, m Member) {
	p := ch.people[m.User]
	if p == nil {
		p = &person{ch: ch, user: m.User}
		ch.people[m.User] = p
		ch.users.Add(1)                          // it stays in the table until the user has left
		data, _ := json.Marshal(store.Member(m)) // Info is JSON: see checkInfo
		h.holds.want(userName(ch.name, m.User), data, h.newPresent(ch, m))
	} else if p.here == 0 {
		h.unlistLocked(ch, p.last.ID)
	}
	p.here++
	p.last = m
	h.listLocked(ch, m)
}

// departLocked undoes arriveLocked.
func (h *Hub) departLocked(p *person, m Member) {
	p.here--
	if p.here > 0 {
		h.unlistLocked(p.ch, m.ID)
		return
	}
	p.last = m
	h.stayLocked(p)
}

// stayLocked keeps a user without connections for the channel's grace.
func (h *Hub) stayLocked(p *person) {
	if grace := p.ch.opts.PresenceGrace; grace > 0 {
		p.until = time.Now().Add(grace)
		if h.graces.add(p, p.until) {
			return
		}
	}
	h.endLocked(p)
}

// endLocked lets a user go.
func (h *Hub) endLocked(p *person) {
	h.unlistLocked(p.ch, p.last.ID)
	delete(p.ch.people, p.user)
	h.holds.release(userName(p.ch.name, p.user))
	p.ch.release()
}

// inheritUser goes on with a user whom a dead replica had last. It reports whether the
// channel has presence by user here, too.
func (h *Hub) inheritUser(channel, user string, data []byte) bool {
	ch, err := h.use(channel, true)
	if err != nil {
		return false
	}
	defer ch.release()
	m := store.Member{}
	if exact.Unmarshal(data, &m) != nil || m.User != user || !ch.byUser(&Member{User: user}) {
		return false
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	h.holds.inherit(userName(channel, user), data, h.newPresent(ch, Member(m)), true)
	if ch.people[user] == nil { // otherwise a connection has come meanwhile
		p := &person{ch: ch, user: user, last: Member(m)}
		ch.people[user] = p
		ch.users.Add(1)
		h.listLocked(ch, p.last)
		h.stayLocked(p)
	}
	return true
}

// present is why a person's name is held: it says when the user joins and leaves.
type present struct {
	hub    *Hub
	ch     *channel // in use
	member Member
}

// newPresent keeps the channel in use.
func (h *Hub) newPresent(ch *channel, m Member) *present {
	ch.users.Add(1)
	return &present{h, ch, m.asUser()}
}

// asUser is a connection as a member that stands for its user.
func (m Member) asUser() Member { return Member{ID: m.User, User: m.User, Info: m.Info} }

// contradict has the Store asked about a user who is here, but who has left as another
// replica says: its event may have been overtaken by ours. Then answered says again that
// the user is here.
func (h *Hub) contradict(ch *channel, event []byte) {
	var e presenceBody
	if exact.Unmarshal(event, &e) != nil || e.Event != eventLeave || e.Member.User == "" || e.Member.ID != e.Member.User {
		return
	}
	ch.mu.Lock()
	p := ch.people[e.Member.User]
	here := p != nil && p.here > 0
	ch.mu.Unlock()
	if here {
		h.holds.ask(userName(ch.name, e.Member.User))
	}
}

func (p *present) answered(ctx context.Context, a heldAnswer) {
	switch {
	case a.has && !a.had && a.Holders == 1, a.has && a.asked:
		p.hub.presenceEvent(ctx, p.ch, eventJoin, p.member)
	case !a.has && a.Changed && a.Holders == 0:
		p.hub.presenceEvent(ctx, p.ch, eventLeave, p.member)
	}
}

func (p *present) dropped() { p.ch.release() }

// oneEach returns one member for each user, and one for each connection without a user.
// Of several connections of a user, Info is that of the first by ID.
func oneEach(members []Member) []Member {
	users := make(map[string]struct{}, len(members))
	each := make([]Member, 0, len(members))
	for _, m := range members {
		if m.User != "" {
			if _, known := users[m.User]; known {
				continue
			}
			users[m.User] = struct{}{}
			m = m.asUser()
		}
		each = append(each, m)
	}
	return each
}

// graces are the users who have no connection any more, and have not left yet.
type graces struct {
	mu   sync.Mutex // guards the fields below, and each person's place
	heap graceHeap
}

// maxGraces bounds the users who are waited for at a time.
const maxGraces = 100_000

// add waits for a user until a time. It returns false if too many are waited for.
func (g *graces) add(p *person, until time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.place > 0: // expired looks at p.until when it comes to p
		return true
	case len(g.heap) >= maxGraces:
		return false
	}
	p.at = until
	heap.Push(&g.heap, p)
	return true
}

// expired removes and returns a person whose time has come, or nil.
func (g *graces) expired(now time.Time) *person {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.heap) == 0 || g.heap[0].at.After(now) {
		return nil
	}
	return heap.Pop(&g.heap).(*person)
}

// endGraces lets the users go who have not come back in time.
func (h *Hub) endGraces(now time.Time) {
	for p := h.graces.expired(now); p != nil; p = h.graces.expired(now) {
		p.ch.mu.Lock()
		switch {
		case p.here > 0 || p.ch.people[p.user] != p: // back, or gone
		case p.until.After(now) && h.graces.add(p, p.until): // back, and away again
		default:
			h.endLocked(p)
		}
		p.ch.mu.Unlock()
	}
}

// graceHeap is ordered by person.at.
type graceHeap []*person

func (h graceHeap) Len() int           { return len(h) }
func (h graceHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h graceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
func (h *graceHeap) Push(x any) {
	p := x.(*person)
	*h = append(*h, p)
	p.place = len(*h)
}
func (h *graceHeap) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	p.place = 0
	return p
}
