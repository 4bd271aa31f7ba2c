package zmqgateway

import (
	"errors"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

// smallMessage is how many bytes a message may have without asking for room:
// each connection has buffers of that size anyway.
const smallMessage = bufferBytes

// A room bounds the memory of the larger messages: from the headers of their
// frames, for which the library allocates at once, until they are published or
// refused.
//
// If the room is full, a message waits and no more of it is read, as happens
// while publishing is slow, so a burst of honest senders loses nothing. Messages
// wait in the order in which they came, so that large ones get their turn. And
// so that nobody waits for peers that only announce, the slowest message that
// has had its time and is not complete ends with its connection. To refuse
// newcomers instead would let 64 strangers keep everybody out. To end the oldest
// at once would make a burst end its own messages.
//
// Strangers have a room of their own. Otherwise many strangers who come again and
// again could fill it without end, and each would get its turn before an honest
// sender.
type room struct {
	max     int           // bytes
	crowded zmtp.Pace     // a message's time while others wait
	turn    chan struct{} // held by the one message that waits for room; the others wait for it, in order
	freed   bell.Bell     // something was given back

	mu         sync.Mutex // guards the fields below
	used       int
	unfinished map[*conn]time.Time // until when each may go on while others wait
}

var (
	errNoRoom = errors.New("zmqgateway: a message took too long to come while others waited for room (MaxUnfinishedBytes)")
	errTwoBig = errors.New("zmqgateway: a message has a second large frame, for which there is no room (MaxUnfinishedBytes)")
)

func newRoom(max int, crowded zmtp.Pace) *room {
	return &room{max: max, crowded: crowded, turn: make(chan struct{}, 1), freed: bell.New(), unfinished: map[*conn]time.Time{}}
}

// take waits until there is room for n more bytes of a message. A message that
// has some already does not wait: those it would wait for might wait for it.
func (r *room) take(c *conn, n int) error {
	if c.holds > 0 {
		if _, ok := r.try(c, n); !ok {
			return errTwoBig
		}
		return nil
	}
	select {
	case r.turn <- struct{}{}:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	defer func() { <-r.turn }()
	for {
		next, ok := r.try(c, n)
		if ok {
			return nil
		}
		select {
		case <-r.freed:
		case <-time.After(next):
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// try takes n bytes if they are free. Otherwise it ends a message that has had
// its time, or returns when there will be one.
func (r *room) try(c *conn, n int) (next time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used+n <= r.max {
		r.used += n
		c.holds += n
		r.unfinished[c] = time.Now().Add(r.crowded.Of(c.holds))
		return 0, true
	}
	var slowest *conn
	for other, until := range r.unfinished {
		if slowest == nil || until.Before(r.unfinished[slowest]) {
			slowest = other
		}
	}
	if slowest == nil {
		return time.Minute, false // all are being published; freed says when one is done
	}
	if next = time.Until(r.unfinished[slowest]); next > 0 {
		return next, false
	}
	delete(r.unfinished, slowest)
	slowest.end(errNoRoom)
	return time.Minute, false // its goroutine gives back what it held
}

// complete is called for a message that has come as a whole. It keeps its room.
func (r *room) complete(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unfinished, c)
}

// giveBack frees what a connection holds.
func (r *room) giveBack(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= c.holds
	c.holds = 0
	delete(r.unfinished, c)
	r.freed.Ring()
}
