package zmtp

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/channels-go/channels/internal/address"
)

// A Crowd holds connections about which nothing is known yet, in the order in
// which they came. If there are too many, one from the address that has the most
// makes way, so that no address keeps the others out. The caller's lock guards it.
type Crowd[C comparable] struct {
	all  []comer[C]
	from map[netip.Prefix]*int // how many connections each address has
}

type comer[C comparable] struct {
	conn C
	from netip.Prefix
	of   *int // Crowd.from[from]
	came time.Time
}

// Len is how many connections there are.
func (w *Crowd[C]) Len() int { return len(w.all) }

// All returns the connections, oldest first.
func (w *Crowd[C]) All() (all []C) {
	for _, c := range w.all {
		all = append(all, c.conn)
	}
	return all
}

// Add takes a connection in.
func (w *Crowd[C]) Add(conn C, addr net.Addr) {
	from := address.Network(addr.String())
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

// Remove lets a connection go, if it is here.
func (w *Crowd[C]) Remove(conn C) {
	if i := slices.IndexFunc(w.all, func(c comer[C]) bool { return c.conn == conn }); i >= 0 {
		w.removeAt(i)
	}
}

func (w *Crowd[C]) removeAt(i int) C {
	c := w.all[i]
	w.all = slices.Delete(w.all, i, i+1)
	if *c.of--; *c.of == 0 {
		delete(w.from, c.from)
	}
	return c.conn
}

// most is how many connections the address with the most has.
func (w *Crowd[C]) most() (most int) {
	for _, of := range w.from {
		most = max(most, *of)
	}
	return most
}

// TakeOldest removes the oldest connection of the address that has the most.
func (w *Crowd[C]) TakeOldest() C {
	most := w.most()
	return w.removeAt(slices.IndexFunc(w.all, func(c comer[C]) bool { return *c.of == most }))
}

// TakeAny removes a random connection of the address that has the most: never
// the newest of all, and if possible one that is older than grace.
//
// To take the oldest instead would give each connection a time that a flood
// makes as short as it likes, and nobody who needs longer would ever finish. By
// chance, some do.
func (w *Crowd[C]) TakeAny(grace time.Duration) C {
	most, until := w.most(), time.Now().Add(-grace)
	old, young := make([]int, 0, MaxShaking), make([]int, 0, MaxShaking) // which needs no heap
	for i, c := range w.all[:len(w.all)-1] {
		switch {
		case *c.of != most:
		case c.came.Before(until):
			old = append(old, i)
		default:
			young = append(young, i)
		}
	}
	if len(old) == 0 {
		old = young
	}
	return w.removeAt(old[rand.IntN(len(old))])
}
