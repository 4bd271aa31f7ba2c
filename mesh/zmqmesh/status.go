package zmqmesh

import (
	"slices"
	"strings"

	"github.com/channels-go/channels/mesh"
)

// Status is cheap: it looks at each peer once.
func (m *Mesh) Status() mesh.Status {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := mesh.Status{Err: m.listener.Err(), Dropped: m.dropped.Load(), Lost: m.inbox.Told.Load(), Refused: m.refused.Load()}
	if s.Err == nil && m.hasTwin() {
		s.Err = mesh.ErrTwin
	}
	if m.closed.Load() {
		s.Err = mesh.ErrClosed
	}
	known := map[string]bool{}
	add := func(p mesh.Peer) {
		if from := m.peers[p.ID]; from != nil {
			from.mu.Lock()
			p.Queued, p.Dropped = from.queued, from.dropped
			from.mu.Unlock()
		}
		known[p.ID] = true
		s.Peers = append(s.Peers, p)
	}
	for _, t := range m.targets {
		if t.aside {
			continue
		}
		p := mesh.Peer{ID: t.id, Address: t.address, Since: t.since, Err: t.err}
		if l := t.link; l != nil {
			l.mu.Lock()
			if p.RTT = l.rtt; !l.up.IsZero() {
				p.Up, p.Since = true, l.up
			}
			l.mu.Unlock()
		} else if m.links[t.id] != nil {
			continue // linked by another address
		}
		add(p)
	}
	for id, from := range m.peers {
		if !known[id] {
			add(mesh.Peer{ID: id, Address: from.from, Since: from.since, Err: "its address is not known"})
		}
	}
	slices.SortFunc(s.Peers, func(a, b mesh.Peer) int {
		return strings.Compare(a.ID+"\x00"+a.Address, b.ID+"\x00"+b.Address)
	})
	return s
}
