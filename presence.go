package channels

import (
	"cmp"
	"context"
	"encoding/json"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// Member is one connection that is subscribed to a channel with presence. With
// [PresenceByUser], it is all connections of one user.
type Member struct {
	// ID is the connection's, unique over all replicas; with PresenceByUser, it is the
	// user's, which stays the same whichever connections come and go.
	ID   string          `json:"id"`
	User string          `json:"user,omitempty"` // Identity.ID
	Info json.RawMessage `json:"info,omitempty"` // Identity.Info; of several connections, that of one
}

// Members is who is in a channel.
type Members struct {
	Members []Member // sorted by ID; up to the limit
	// Total is how many there are. With PresenceByUser, it is exact if they have up to
	// 10,000 connections; each further connection counts as one member.
	Total int
}

// maxMembers bounds one answer of Presence.
const maxMembers = 10_000

// Presence returns who is subscribed to a channel on all replicas, up to limit
// (0: 10,000, the most). It shows changes on this replica at once, changes on
// others within 2 s, and the death of a replica within 10 s, as long as the Store
// is up and all replicas share it. Go subscribers are not members. The errors are
// [ErrNoPresence], [ErrBadQuery], and those of [Hub.Channel].
func (h *Hub) Presence(ctx context.Context, channel string, limit int) (Members, error) {
	if !h.calls.Enter() {
		return Members{}, ErrClosed
	}
	defer h.calls.Leave()
	if limit < 0 || limit > maxMembers {
		return Members{}, ErrBadQuery.saying("limit is %d; it must be 0 to %d", limit, maxMembers)
	}
	limit = cmp.Or(limit, maxMembers)
	opts, err := h.optionsOf(channel)
	if err != nil {
		return Members{}, err
	}
	if opts.Presence == PresenceOff {
		return Members{}, ErrNoPresence
	}
	ctx, cancel := h.storeContext(ctx) // for both calls
	defer cancel()
	if err := h.flush(ctx, false); err != nil {
		return Members{}, err
	}
	most := limit
	if opts.PresenceBy == PresenceByUser {
		most = maxMembers // to know who has several connections
	}
	ms, total, err := h.store.Members(ctx, channel, most)
	if err != nil {
		return Members{}, ErrStoreUnavailable.because(err)
	}
	r := Members{Members: make([]Member, len(ms)), Total: total}
	for i, m := range ms {
		r.Members[i] = Member(m)
	}
	if opts.PresenceBy == PresenceByUser {
		each := oneEach(r.Members)
		r = Members{each[:min(limit, len(each))], total - len(ms) + len(each)}
	}
	return r, nil
}

// joined makes a connection a member of the channel that it is subscribed to.
func (h *Hub) joined(ch *channel, m Member) {
	if ch.opts.Presence == PresenceOff {
		return
	}
	ch.mu.Lock()
	if ch.byUser(&m) {
		h.arriveLocked(ch, m)
		ch.mu.Unlock()
		return
	}
	h.listLocked(ch, m)
	ch.mu.Unlock()
	h.presenceEventNow(ch, eventJoin, m)
}

// listLocked has the Store show a connection as a member.
func (h *Hub) listLocked(ch *channel, m Member) {
	ch.members[m.ID] = m
	h.report.changePresence(store.PresenceChange{Channel: ch.name, Member: store.Member(m)})
}

// unlistLocked undoes listLocked.
func (h *Hub) unlistLocked(ch *channel, id string) {
	delete(ch.members, id)
	h.report.changePresence(store.PresenceChange{Channel: ch.name, Member: store.Member{ID: id}, Left: true})
}

// left undoes joined. It may be repeated.
func (h *Hub) left(ch *channel, id string) {
	if ch.opts.Presence == PresenceOff {
		return
	}
	ch.mu.Lock()
	m, ok := ch.members[id]
	if p := ch.people[m.User]; ok && ch.byUser(&m) {
		h.departLocked(p, m)
		ok = false
	}
	if ok {
		h.unlistLocked(ch, id)
	}
	ch.mu.Unlock()
	if ok {
		h.presenceEventNow(ch, eventLeave, m)
	}
}

// presenceEventNow is presenceEvent for one event.
func (h *Hub) presenceEventNow(ch *channel, event string, m Member) {
	if ch.opts.Presence != PresenceEvents {
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, besides)
	defer cancel()
	h.presenceEvent(ctx, ch, event, m)
}

// presenceBody is the body of an event of presence.
type presenceBody struct {
	Event  string `json:"event"`
	Member Member `json:"member"`
}

// The values of presenceBody.Event.
const (
	eventJoin  = "join"
	eventLeave = "leave"
)

// presenceEvent tells the subscribers on all replicas, at most once. Events have
// no position: a subscriber that missed one does not learn of it, and has to ask
// for the list.
func (h *Hub) presenceEvent(ctx context.Context, ch *channel, event string, m Member) {
	if ch.opts.Presence != PresenceEvents {
		return
	}
	body, err := json.Marshal(presenceBody{event, m})
	if err != nil { // Identity.Info is not JSON
		h.log.Error("presence: no event was sent, because Identity.Info is not JSON", "user", m.User, "err", err)
		return
	}
	if h.mesh != nil {
		p := mesh.Packet{Kind: mesh.KindPresence, Channel: ch.name, Body: body}
		if err := h.guard("the mesh", func() error { return h.mesh.Publish(ctx, p) }); err != nil {
			h.log.Debug("mesh: presence", "channel", ch.name, "err", err)
		}
	}
	ch.take(newMessageFrame(ch, Message{Header: headerPresence, Body: body}))
}
