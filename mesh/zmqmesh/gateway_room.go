package zmqmesh

import (
	"errors"
	"sync"
	"time"
)

// smallMessage is what a message may have without asking for room. Each
// connection has buffers of that size anyway.
const smallMessage = gatewayBuffer

// A room bounds what the larger messages of a gateway hold together, from the
// headers of their frames, for which the library allocates at once, until they
// are published or refused.
//
// Where it is full, a message waits and nothing more of it is read, as while
// publishing is slow: a burst of honest senders loses nothing by that. It waits
// in the order of coming, so that larger ones have their turn, too. And so that
// nobody waits for those who only announce, one that has had its time and is
// still not whole then ends with its connection, the slowest first. To refuse
// newcomers instead would let 64 strangers keep everybody out; to end the
// oldest at once, a burst would end its own messages.
//
// Strangers have a room of their own. Many who come again and again fill it
// without end, and each of them would have its turn before an honest sender.
type room struct {
	max     int           // bytes
	crowded pace          // what a message is given while others wait
	turn    chan struct{} // is held by the one that waits for room; the others wait for it, in their order
	freed   chan struct{} // holds one: something was given back

	mu         sync.Mutex // guards the fields below
	used       int
	unfinished map[*guard]time.Time // until when each may go on while others wait
}

// A pace is how much time a message has: some whatever its size, and what it
// needs at so many bytes a second.
type pace struct {
	start time.Duration
	rate  int
}

func (p pace) of(size int) time.Duration {
	return p.start + time.Duration(size)*time.Second/time.Duration(p.rate)
}

var (
	errNoRoom  = errors.New("zmqmesh: a message took too long to come while others waited for room (MaxUnfinishedBytes)")
	errTwoBig  = errors.New("zmqmesh: a message has a second large frame, for which there is no room (MaxUnfinishedBytes)")
	errTooSlow = errors.New("zmqmesh: a message took too long to come")
)

func newRoom(max int, crowded pace) *room {
	return &room{max: max, crowded: crowded, turn: make(chan struct{}, 1), freed: make(chan struct{}, 1), unfinished: map[*guard]time.Time{}}
}

// take waits until there is room for n more bytes of a message. One that has
// some already does not wait, as those it waited for might wait for it.
func (r *room) take(g *guard, n int) error {
	if g.holds > 0 {
		if _, ok := r.try(g, n); !ok {
			return errTwoBig
		}
		return nil
	}
	select {
	case r.turn <- struct{}{}:
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
	defer func() { <-r.turn }()
	for {
		next, ok := r.try(g, n)
		if ok {
			return nil
		}
		timer := time.NewTimer(next)
		select {
		case <-r.freed:
		case <-timer.C:
		case <-g.ctx.Done():
		}
		timer.Stop()
		if err := g.ctx.Err(); err != nil {
			return err
		}
	}
}

// try takes n bytes where they are free. Otherwise it ends a message that has
// had its time, or tells when there will be one.
func (r *room) try(g *guard, n int) (next time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used+n <= r.max {
		r.used += n
		g.holds += n
		r.unfinished[g] = time.Now().Add(r.crowded.of(g.holds))
		return 0, true
	}
	var slowest *guard
	for other, until := range r.unfinished {
		if slowest == nil || until.Before(r.unfinished[slowest]) {
			slowest = other
		}
	}
	if slowest == nil {
		return time.Minute, false // all are being published, and then freed
	}
	if next = time.Until(r.unfinished[slowest]); next > 0 {
		return next, false
	}
	delete(r.unfinished, slowest)
	slowest.end(errNoRoom)
	return time.Minute, false // its goroutine gives back what it held
}

// whole says that a message has come. What it holds it goes on holding.
func (r *room) whole(g *guard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unfinished, g)
}

// giveBack is for a message that is done with, or whose connection has ended.
func (r *room) giveBack(g *guard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= g.holds
	g.holds = 0
	delete(r.unfinished, g)
	select {
	case r.freed <- struct{}{}:
	default:
	}
}
