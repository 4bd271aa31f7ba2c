package zmqmesh

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"
)

// dnsPeriod is how often the DNS is asked, and how long it has to answer.
const dnsPeriod = 5 * time.Second

// A wish is what a source of addresses says of one of them: the replica that
// announces it, or "", and the host that its certificate is for, or "" for that
// of the address.
type wish struct{ id, name string }

// sources give addresses. Several may give the same one, and come and go in any
// order: what one says of it takes nothing away from what another one says.
// Names are tried in this order: that of the DNS is nowhere else.
var sources = []string{"dns", "options", "registry"}

// wanted is what all sources together say of an address.
type wanted struct {
	names []string
	owner string
}

// wantedLocked joins what the sources say, by address.
func (m *Mesh) wantedLocked() map[string]*wanted {
	all := map[string]*wanted{}
	for _, source := range sources {
		for address, from := range m.wishes[source] {
			w := all[address]
			if w == nil {
				if len(all) >= maxPeers {
					continue
				}
				w = &wanted{}
				all[address] = w
			}
			name := from.name
			if name == "" {
				name, _, _ = net.SplitHostPort(strings.TrimPrefix(address, "tcp://"))
			}
			if !slices.Contains(w.names, name) {
				w.names = append(w.names, name)
			}
			if from.id != "" {
				w.owner = from.id
			}
		}
	}
	return all
}

// setWishes replaces what one source of addresses has given, by address.
func (m *Mesh) setWishes(source string, wishes map[string]wish) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return
	}
	m.wishes[source] = wishes
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

// lookUp asks the DNS for addresses, until the mesh is closed. What was found
// is kept while it does not answer.
func (m *Mesh) lookUp() {
	host, port, _ := net.SplitHostPort(m.opts.DNS)
	tick := time.NewTicker(dnsPeriod)
	defer tick.Stop()
	told := false
	for {
		ctx, cancel := context.WithTimeout(m.ctx, dnsPeriod)
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		cancel()
		if err == nil {
			wishes := map[string]wish{}
			for _, ip := range found {
				wishes["tcp://"+net.JoinHostPort(ip, port)] = wish{name: host}
			}
			m.setWishes("dns", wishes)
		} else if !told && m.ctx.Err() == nil {
			m.log.Warn("mesh: looking up replicas; those known are kept", "name", host, "err", err)
		}
		told = err != nil
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
	}
}
