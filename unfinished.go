package channels

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/unread"
)

// unfinished is the budget for requests' bodies and WebSocket messages that have
// not arrived completely. It bounds their bytes together, and the time of each.
// All its methods may be called by many goroutines at the same time.
type unfinished struct {
	limit int
	grace time.Duration
	cut   atomic.Int64 // how many were cut short since that was last logged

	mu     sync.Mutex // guards the fields below
	total  int
	claims map[*claim]struct{}
	shut   bool // the hub is shut down: new requests have little time
}

// A claim is one reader's part of the budget. Only the reader calls its methods.
// The budget may cut the reader short.
type claim struct {
	budget *unfinished
	w      http.ResponseWriter // the request's, or
	nc     net.Conn            // the WebSocket's
	wait   time.Duration       // in which everything has to arrive; 0 if a deadline ensures that

	held  int // written with budget.mu held; the reader may read it without
	since time.Time
	over  error // why the reading was cut short
}

const (
	// unfinishedGrace is how long a body or a message may take to arrive, plus
	// 1 s for each uploadBytes of its greatest length.
	unfinishedGrace = 10 * time.Second
	uploadBytes     = 64 << 10

	// inflaterBytes is how much memory the library takes to inflate a message.
	inflaterBytes = 44 << 10
)

// timeFor returns how long a body or message of so many bytes may take to arrive.
func (u *unfinished) timeFor(bytes int) time.Duration {
	return u.grace + time.Duration(bytes)*time.Second/uploadBytes
}

// hold sets how many bytes the reader holds. The reader calls it before it waits
// for more, and gives up after an error. Its time begins with the first call.
func (c *claim) hold(bytes int) error {
	if bytes == c.held {
		return nil
	}
	u := c.budget
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.over != nil {
		return c.over
	}
	if c.held == 0 {
		if u.shut && c.w != nil {
			http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(unread.Linger))
		}
		c.since = time.Now()
		u.claims[c] = struct{}{}
	}
	u.total += bytes - c.held
	c.held = bytes
	if u.total > u.limit {
		u.makeRoomLocked()
	}
	return c.over
}

// release ends the claim. It returns why the reading was cut short, if it was.
func (c *claim) release() error {
	if c.held == 0 && c.over == nil {
		return nil
	}
	u := c.budget
	u.mu.Lock()
	defer u.mu.Unlock()
	err := c.over
	u.dropLocked(c)
	*c = claim{}
	return err
}

func (u *unfinished) dropLocked(c *claim) {
	if _, ok := u.claims[c]; ok {
		u.total -= c.held
		delete(u.claims, c)
	}
}

// makeRoomLocked cuts short the claims that have held most for longest. It frees an
// eighth of the limit at a time, so that it does not sort all claims for each
// newcomer of a flood.
func (u *unfinished) makeRoomLocked() {
	now := time.Now()
	weight := func(c *claim) float64 { return float64(c.held) * float64(now.Sub(c.since)+1) }
	cs := slices.SortedFunc(maps.Keys(u.claims), func(a, b *claim) int { return cmp.Compare(weight(b), weight(a)) })
	for _, c := range cs {
		if u.total <= u.limit/8*7 {
			return
		}
		u.cutLocked(c, errUnfinished)
		u.cut.Add(1)
	}
}

// cutLocked ends a reader's wait. The lock is held meanwhile, since without it the
// connection may already be another request's.
func (u *unfinished) cutLocked(c *claim, err error) {
	u.dropLocked(c)
	c.over = err
	past := time.Unix(1, 0)
	if c.nc != nil {
		c.nc.SetReadDeadline(past)
	} else {
		http.NewResponseController(c.w).SetReadDeadline(past) // if a middleware hides it, the server's own deadline remains
	}
}

// expire cuts short the claims whose time is up.
func (u *unfinished) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.claims {
		if c.wait > 0 && time.Since(c.since) > c.wait {
			u.cutLocked(c, errTooSlow)
		}
	}
}

// end cuts short all requests, since nothing can be published any more. WebSockets
// are closed in their own way.
func (u *unfinished) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.shut = true
	for c := range u.claims {
		if c.w != nil {
			u.cutLocked(c, ErrClosed)
		}
	}
}
