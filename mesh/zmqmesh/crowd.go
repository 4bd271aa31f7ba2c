package zmqmesh

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A crowd is connections of which nothing is known yet, in the order of their
// coming. Where there are more than may be, one of the address that has the most
// makes way, so that no address keeps the others out. Its user's lock guards it.
type crowd[C comparable] struct {
	all  []comer[C]
	from map[netip.Prefix]*int // how many of them each address has
}

type comer[C comparable] struct {
	conn C
	from netip.Prefix
	of   *int // crowd.from[from]
	came time.Time
}

// add takes a connection in.
func (w *crowd[C]) add(conn C, addr net.Addr) {
	from := origin(addr)
	of := w.from[from]
	if of == nil {
		if w.from == nil {
			w.from = map[netip.Prefix]*int{}
		}
		of = new(int)
		w.from[from] = of
	}
	*of++
	w.all = append(w.all, comer[C]{conn, from, of, time.Now()})
}

// remove lets a connection go, if it is here.
func (w *crowd[C]) remove(conn C) {
	if i := slices.IndexFunc(w.all, func(c comer[C]) bool { return c.conn == conn }); i >= 0 {
		w.removeAt(i)
	}
}

func (w *crowd[C]) removeAt(i int) C {
	c := w.all[i]
	w.all = slices.Delete(w.all, i, i+1)
	if *c.of--; *c.of == 0 {
		delete(w.from, c.from)
	}
	return c.conn
}

// most is how many the address has that has the most.
func (w *crowd[C]) most() (most int) {
	for _, of := range w.from {
		most = max(most, *of)
	}
	return most
}

// takeOldest removes the oldest of the address that has the most.
func (w *crowd[C]) takeOldest() C {
	most := w.most()
	return w.removeAt(slices.IndexFunc(w.all, func(c comer[C]) bool { return *c.of == most }))
}

// takeAny removes one by chance of the address that has the most, but not the
// newest, and one that has had its grace, if there is any. The oldest would be
// gone after a time that a flood makes as short as it likes, so that nobody who
// takes longer would ever be done; by chance, some are.
func (w *crowd[C]) takeAny(grace time.Duration) C {
	most, until := w.most(), time.Now().Add(-grace)
	var picked, pardoned, seen, young int
	for i, c := range w.all[:len(w.all)-1] {
		switch {
		case *c.of != most:
		case c.came.Before(until):
			if seen++; rand.IntN(seen) == 0 {
				picked = i
			}
		default:
			if young++; rand.IntN(young) == 0 {
				pardoned = i
			}
		}
	}
	if seen == 0 {
		picked = pardoned
	}
	return w.removeAt(picked)
}

// origin is who counts as one: an address, or with IPv6 the 64 bits of which
// each customer has at least one.
func origin(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // of an address that is none, all are one
	return p
}
