package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"
)

const (
	holderOverhead = 400
	heldOverhead   = 140 // a name, its first holder, and its place in that one's set
	shareOverhead  = 40  // a further holder
)

// holdings are which replicas hold which names. registry.mu guards all of it.
type holdings struct {
	names   map[string]*heldName
	holders map[string]*holder // by replica
}

// heldName is a name that somebody holds.
type heldName struct {
	by   []*holder // the one that has held it longest first; never empty
	data []byte
}

// holder is a replica that holds names, or did.
type holder struct {
	id    string
	seen  time.Duration // see Memory.now
	left  bool          // it was forgotten
	names map[string]struct{}
	news  map[string]struct{} // names that it has to hear of
}

func newHoldings() holdings {
	return holdings{names: make(map[string]*heldName), holders: make(map[string]*holder)}
}

var _ Holder = (*Memory)(nil)

// Hold implements [Holder].
func (m *Memory) Hold(ctx context.Context, replica string, h Holding) (Held, error) {
	now, err := m.lockRegistry(ctx)
	if err != nil {
		return Held{}, err
	}
	me := m.holderLocked(replica)
	me.seen, me.left = now, false
	held := Held{Changes: make([]HoldState, len(h.Changes))}
	for i, c := range h.Changes {
		var changed bool
		if c.Released {
			changed = m.releaseLocked(me, c.Name)
		} else {
			changed = m.takeLocked(me, c.Name, c.Data)
		}
		s := m.reg.holds.state(c.Name)
		s.Changed = changed
		held.Changes[i] = s
	}
	if h.Full {
		known := make(map[string]bool, len(h.Changes))
		for _, c := range h.Changes {
			known[c.Name] = !c.Released
		}
		for name := range me.names {
			if !known[name] {
				held.News = append(held.News, m.reg.holds.inherited(name))
			}
		}
	}
	if h.Inherits {
		held.News = append(held.News, m.inheritLocked(me, now)...)
	}
	for name := range me.news {
		if _, ok := me.names[name]; ok {
			held.News = append(held.News, m.reg.holds.state(name))
		}
	}
	clear(me.news)
	held.Total = len(me.names)
	m.reg.mu.Unlock()
	m.evict()
	return held, nil
}

// holderLocked returns a replica, new if it has never held anything.
func (m *Memory) holderLocked(replica string) *holder {
	r, ok := m.reg.holds.holders[replica]
	if !ok {
		r = &holder{id: strings.Clone(replica), names: make(map[string]struct{}), news: make(map[string]struct{})}
		m.reg.holds.holders[r.id] = r
		m.pin(int64(len(r.id)) + holderOverhead)
	}
	return r
}

// takeLocked reports whether r did not hold the name before.
func (m *Memory) takeLocked(r *holder, name string, data []byte) bool {
	n, ok := m.reg.holds.names[name]
	if !ok {
		n = new(heldName)
		name = strings.Clone(name)
		m.reg.holds.names[name] = n
		m.pin(int64(len(name)) + heldOverhead)
	}
	if data != nil {
		m.pin(int64(len(data) - len(n.data)))
		n.data = bytes.Clone(data)
	}
	if slices.Contains(n.by, r) {
		return false
	}
	n.by = append(n.by, r)
	r.names[strings.Clone(name)] = struct{}{}
	m.pin(int64(len(name)) + shareOverhead)
	return true
}

// releaseLocked reports whether r held the name. Who is the owner or the only holder
// because of that is to hear of it.
func (m *Memory) releaseLocked(r *holder, name string) bool {
	n := m.reg.holds.names[name]
	if n == nil {
		return false
	}
	at := slices.Index(n.by, r)
	if at < 0 {
		return false
	}
	n.by = slices.Delete(n.by, at, at+1)
	delete(r.names, name)
	m.pin(-int64(len(name)) - shareOverhead)
	switch {
	case len(n.by) == 0:
		delete(m.reg.holds.names, name)
		m.pin(-int64(len(name)+len(n.data)) - heldOverhead)
	case at == 0 || len(n.by) == 1:
		n.by[0].news[strings.Clone(name)] = struct{}{}
	}
	return true
}

// inheritLocked takes dead replicas out of what they held. What they alone held is
// now r's.
func (m *Memory) inheritLocked(r *holder, now time.Duration) (inherited []HoldState) {
	for id, dead := range m.reg.holds.holders {
		if dead == r || !dead.left && now-dead.seen < DeadAfter {
			continue
		}
		for name := range dead.names {
			if n := m.reg.holds.names[name]; len(n.by) == 1 {
				m.takeLocked(r, name, nil)
				m.releaseLocked(dead, name)
				delete(r.news, name)
				inherited = append(inherited, m.reg.holds.inherited(name))
			} else {
				m.releaseLocked(dead, name)
			}
		}
		delete(m.reg.holds.holders, id)
		m.pin(-int64(len(id)) - holderOverhead)
	}
	return inherited
}

// leaveHoldsLocked makes a replica count as dead, so that others inherit what it holds.
func (m *Memory) leaveHoldsLocked(replica string) {
	if r, ok := m.reg.holds.holders[replica]; ok {
		r.left = true
	}
}

func (h *holdings) state(name string) HoldState {
	s := HoldState{Name: name}
	if n := h.names[name]; n != nil {
		s.Owner, s.Holders = n.by[0].id, len(n.by)
	}
	return s
}

func (h *holdings) inherited(name string) HoldState {
	s := h.state(name)
	s.Inherited, s.Data = true, bytes.Clone(h.names[name].data)
	return s
}
