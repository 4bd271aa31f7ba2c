package store

import (
	"bytes"
	"context"
	"strings"

	"github.com/tidwall/btree"
)

// room holds the members of a channel, by ID.
type room struct {
	channel string
	members btree.Map[string, *present]
}

// present is a member, and the replica that reported it.
type present struct {
	member Member
	by     *replica
}

// memberKey names a member of a channel.
type memberKey struct{ channel, id string }

// UpdatePresence implements [Presence].
func (m *Memory) UpdatePresence(ctx context.Context, replica string, changes []PresenceChange) error {
	if _, err := m.lockRegistry(ctx); err != nil {
		return err
	}
	if r, ok := m.reg.replicas[replica]; ok && !r.dead {
		m.updateLocked(r, changes)
	}
	m.reg.mu.Unlock()
	m.evict()
	return nil
}

func (m *Memory) updateLocked(r *replica, changes []PresenceChange) {
	for _, c := range changes {
		if c.Left {
			m.leaveLocked(r, memberKey{c.Channel, c.Member.ID})
		} else {
			m.joinLocked(r, c.Channel, c.Member)
		}
	}
}

// Members implements [Presence].
func (m *Memory) Members(ctx context.Context, channel string, limit int) (members []Member, total int, err error) {
	if _, err := m.lockRegistry(ctx); err != nil {
		return nil, 0, err
	}
	defer m.reg.mu.Unlock()
	room, ok := m.reg.rooms[channel]
	if !ok {
		return nil, 0, nil
	}
	room.members.Scan(func(_ string, p *present) bool {
		if len(members) >= limit {
			return false
		}
		mb := p.member
		mb.Info = bytes.Clone(mb.Info)
		members = append(members, mb)
		return true
	})
	return members, room.members.Len(), nil
}

// joinLocked adds a member or replaces what is known about it. A member that
// another replica reported belongs to r from now on.
func (m *Memory) joinLocked(r *replica, channel string, mb Member) {
	rm, ok := m.reg.rooms[channel]
	if !ok {
		rm = &room{channel: strings.Clone(channel)}
		m.reg.rooms[rm.channel] = rm
		m.pin(roomCost(rm.channel))
	}
	p, ok := rm.members.Get(mb.ID)
	if !ok {
		p = &present{member: Member{ID: strings.Clone(mb.ID)}, by: r}
		rm.members.Set(p.member.ID, p)
	} else {
		m.pin(-memberCost(p.member))
	}
	key := memberKey{rm.channel, p.member.ID}
	if p.by != r {
		delete(p.by.members, key)
		p.by = r
	}
	r.members[key] = struct{}{}
	p.member.User = strings.Clone(mb.User)
	p.member.Info = bytes.Clone(mb.Info)
	m.pin(memberCost(p.member))
}

// leaveLocked removes a member if it is r's.
func (m *Memory) leaveLocked(r *replica, key memberKey) {
	if _, ok := r.members[key]; !ok {
		return
	}
	rm := m.reg.rooms[key.channel]
	p, _ := rm.members.Delete(key.id)
	m.pin(-memberCost(p.member))
	delete(r.members, key)
	if rm.members.Len() == 0 {
		delete(m.reg.rooms, rm.channel)
		m.pin(-roomCost(rm.channel))
	}
}

func memberCost(mb Member) int64 {
	return int64(len(mb.ID)) + int64(len(mb.User)) + int64(len(mb.Info)) + memberOverhead
}

func roomCost(channel string) int64 { return int64(len(channel)) + roomOverhead }
