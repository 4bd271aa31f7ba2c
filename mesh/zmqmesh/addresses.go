package zmqmesh

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"
	"time"
)

// dnsPeriod is how often the DNS is asked, and how long it has to answer.
const dnsPeriod = 5 * time.Second

// A hint is what a source of addresses says about one of them: the replica that
// announces it, or "", and the host that its certificate is for, or "" for the
// host of the address.
type hint struct{ id, name string }

// sources give addresses. Several may give the same one, and come and go in any
// order: what one says takes nothing away from what another says. Names are tried
// in this order, because only the DNS knows its name.
var sources = []string{"dns", "options", "registry"}

// wanted is what all sources together say about an address.
type wanted struct {
	names []string
	owner string
}

// wantedLocked joins what the sources say, by address.
func (m *Mesh) wantedLocked() map[string]*wanted {
	all := map[string]*wanted{}
	for _, source := range sources {
		for address, from := range m.hints[source] {
			w := all[address]
			if w == nil {
				if len(all) >= maxPeers {
					continue
				}
				w = &wanted{}
				all[address] = w
			}
			host, _, _ := net.SplitHostPort(strings.TrimPrefix(address, "tcp://"))
			name := cmp.Or(from.name, host)
			if !slices.Contains(w.names, name) {
				w.names = append(w.names, name)
			}
			w.owner = cmp.Or(from.id, w.owner)
		}
	}
	return all
}

// setHints replaces what one source says, by address.
func (m *Mesh) setHints(source string, hints map[string]hint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return
	}
	m.hints[source] = hints
	all := m.wantedLocked()
	for address, t := range m.targets {
		_, t.wanted = all[address]
	}
	for address, w := range all {
		t := m.targets[address]
		if t == nil {
			t = &target{address: address, wanted: true, since: time.Now()}
			m.targets[address] = t
			m.running.Go(func() { m.keep(t) })
		}
		t.names, t.owner = w.names, w.owner
		if w.owner != "" && t.link == nil {
			t.id = w.owner
		}
	}
}

// SetPeers connects to these replicas besides those of Options.Peers and
// Options.DNS. It logs and leaves out addresses that cannot be connected to.
func (m *Mesh) SetPeers(addresses map[string]string) {
	hints := make(map[string]hint, len(addresses))
	for id, address := range addresses {
		if id == m.opts.ReplicaID {
			continue
		}
		if err := checkReachable("the registry", address); err != nil {
			m.log.Warn("mesh: a replica does not announce a usable address", "peer", id, "err", err)
			continue
		}
		hints[address] = hint{id: id}
	}
	m.setHints("registry", hints)
}

// lookUp asks the DNS for addresses. If the DNS does not answer, the addresses
// found last are kept, and the log says so unless it was told before.
func (m *Mesh) lookUp(told bool) (failed bool) {
	host, port, _ := net.SplitHostPort(m.opts.DNS)
	ctx, cancel := context.WithTimeout(m.ctx, dnsPeriod)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		if !told && m.ctx.Err() == nil {
			m.log.Warn("mesh: the DNS gives no addresses; those found last are kept", "name", host, "err", err)
		}
		return true
	}
	hints := map[string]hint{}
	for _, ip := range found {
		hints["tcp://"+net.JoinHostPort(ip, port)] = hint{name: host}
	}
	m.setHints("dns", hints)
	return false
}
