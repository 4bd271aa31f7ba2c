// Package poll tells when connections have something to read, so that no goroutine
// has to wait for each of them.
//
// The Go runtime wakes a goroutine that waits in a connection's Read. For a connection
// that is idle, that goroutine's stack is most of what it costs. A [Poller] asks the
// system itself, beside the runtime, and starts no goroutine until bytes are there.
//
// There is one for Linux (poll_linux.go). [New] says where there is none.
//
// The build tag portable leaves out the Poller, and whatever else is not for every
// system, so that the tests can run on Linux what Windows runs.
package poll

import (
	"sync"
	"sync/atomic"
	"syscall"
)

// A Poller watches connections that rest. Its methods may be called concurrently.
type Poller struct {
	system // the system's part

	mu     sync.Mutex // guards the fields below
	places []place
	free   int32 // the first free place, or none
	closed bool
}

// A place is where the system's events find a Watch. Events are told by the number of
// the place and how often it was used before, and not by the descriptor: by the time that
// an event is taken, both may belong to another connection.
type place struct {
	watch *Watch
	used  uint32
	next  int32 // the next free place
}

const none = -1

// A Watch is one connection in a Poller. Its owner is either the goroutine that reads the
// connection, or, while it rests, nobody. Only a goroutine that reads calls Rest and
// Remove. The zero Watch is not in a Poller, and Wake and Remove do nothing.
type Watch struct {
	poller  *Poller // nil if it is in none
	reader  Reader
	resting atomic.Bool
	armed   atomic.Bool // the system tells of the next event, or is being asked to
	known   bool        // the system was told of the connection
	place   int32
	used    uint32
}

// A Reader reads a connection. Readable is called once after each Rest that returned
// true: when something can be read, when the connection is over, or by Wake. It must not
// wait: it may read at once, and Rest again, or starts the goroutine that reads from then on.
type Reader interface{ Readable() }

// New returns a Poller. Its error is errors.ErrUnsupported on systems that have none.
func New() (*Poller, error) {
	p := &Poller{free: none}
	if err := p.system.open(); err != nil {
		return nil, err
	}
	return p, nil
}

// Run watches until Close.
func (p *Poller) Run() { p.system.run(p.event) }

// Close ends Run and wakes all that rest. After it, Rest returns false.
func (p *Poller) Close() {
	p.mu.Lock()
	p.closed = true
	var watches []*Watch
	for _, at := range p.places {
		if at.watch != nil {
			watches = append(watches, at.watch)
		}
	}
	p.mu.Unlock()
	p.system.close()
	for _, w := range watches {
		w.armed.Store(false) // or Rest would still return true
		w.Wake()
	}
}

// Rest lets a connection's reader go until there is something to read. After true, the
// caller no longer reads, and must leave the connection alone: another goroutine may read
// already. After false it goes on.
//
// Rest may be called whether or not something waits to be read. The connection must not
// be another's before Remove, though it may be closed.
func (p *Poller) Rest(w *Watch, conn syscall.RawConn, r Reader) bool {
	if w.poller == nil && !p.add(w, r) {
		return false
	}
	first := !w.known
	w.known = true
	number, used := w.place, w.used
	w.resting.Store(true) // from here on, w may be another goroutine's
	// After Wake, the event that was asked for is still to come, unless the connection has
	// been closed: event clears armed before it wakes, and whoever sets it asks for another
	// one, or reads on.
	if w.armed.CompareAndSwap(false, true) {
		if p.system.arm(conn, first, number, used) {
			return true
		}
		w.armed.Store(false)
	} else if conn.Control(whileOpen) == nil {
		return true
	}
	return !w.resting.CompareAndSwap(true, false) // or somebody has woken it
}

// whileOpen is not called if the descriptor is closed.
func whileOpen(uintptr) {}

// Wake ends a rest. It does nothing if the connection does not rest.
func (w *Watch) Wake() {
	if w.resting.Load() && w.resting.CompareAndSwap(true, false) {
		w.reader.Readable()
	}
}

// Resting reports whether the connection rests.
func (w *Watch) Resting() bool { return w.resting.Load() }

// Remove takes a connection out of its Poller. It may be repeated.
func (w *Watch) Remove() {
	p := w.poller
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places[w.place] = place{used: w.used + 1, next: p.free}
	p.free = w.place
	w.poller, w.reader, w.known = nil, nil, false
	w.armed.Store(false)
}

// add gives a Watch a place.
func (p *Poller) add(w *Watch, r Reader) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.free == none {
		p.free = int32(len(p.places))
		p.places = append(p.places, place{next: none})
	}
	w.poller, w.reader, w.place = p, r, p.free
	at := &p.places[w.place]
	p.free = at.next
	w.used, at.watch = at.used, w
	return true
}

// event wakes the connection of an event, if that is still there.
func (p *Poller) event(number int32, used uint32) {
	p.mu.Lock()
	at := p.places[number]
	p.mu.Unlock()
	if at.watch != nil && at.used == used {
		at.watch.armed.Store(false)
		at.watch.Wake()
	}
}
