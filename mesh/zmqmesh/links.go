package zmqmesh

import (
	"maps"
	"slices"
)

// judge is called during the handshake, before the other side takes this
// connection for the one that counts. It refuses one to this replica itself, and
// one to a life of a replica to which there is a link already; it returns that
// link. The other side has not proved anything yet, so what it says of itself can
// end this connection, but never keeps another one waiting.
func (m *Mesh) judge(peer *hello) (other *link, err error) {
	if peer.id == m.opts.ReplicaID {
		if peer.life == m.life {
			return nil, errSelf
		}
		return nil, nil // a twin, once it has proved itself
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if l := m.links[peer.id]; l != nil && l.life == peer.life {
		return l, errDuplicate
	}
	return nil, nil
}

// addLink takes in a link that has proved itself. It replaces an earlier one: to
// another life of the replica, or by another address that was dialled at the same
// moment. In that case, too, the later link stays, because the other side keeps
// the later connection.
func (m *Mesh) addLink(t *target, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for old := m.links[l.id]; old != nil; old = m.links[l.id] {
		m.mu.Unlock()
		if old.life == l.life {
			l.before = old.before
			old.close(errDuplicate)
		} else {
			l.before = old.life
			old.close(errAnotherLife)
			if old.before == l.life {
				m.warnTwins(l.id, l.address, old.address)
			}
		}
		<-old.done // so that everything it has to deliver comes before
		l.owes = l.owes || old.owes || !old.up.IsZero()
		m.mu.Lock()
	}
	if h := m.heard[l.id]; h.life == l.life {
		l.floor = h.top
		l.top = h.top
	}
	m.links[l.id] = l
	t.link, t.id, t.aside, t.err = l, l.id, false, ""
	m.setLiveLocked()
}

func (m *Mesh) removeLink(t *target, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, l.id)
	t.down(l.err.Error()) // so that Status never shows two links to a replica
	if len(m.heard) >= maxPeers {
		clear(m.heard)
	}
	m.heard[l.id] = heard{l.life, l.top}
	m.setLiveLocked()
}

func (m *Mesh) setLiveLocked() {
	live := slices.Collect(maps.Values(m.links))
	m.live.Store(&live)
}
