package channels

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/unread"
)

// unfinished is what the hub holds of bodies of requests and of WebSocket
// messages whose rest has not come. It bounds all of them together in bytes, and
// each in time. All its methods may be called at the same time.
type unfinished struct {
	limit int
	grace time.Duration

	mu     sync.Mutex // guards the fields below
	total  int
	claims map[*claim]struct{}
	cut    int  // how many have made way since flush
	shut   bool // who brings a request now has little time
}

// A claim is one reader's part of the budget. Only the reader calls its methods;
// the budget may cut the reading short.
type claim struct {
	budget *unfinished
	w      http.ResponseWriter // the request's, or
	nc     net.Conn            // the WebSocket's
	wait   time.Duration       // in which all has to come; 0 where a deadline sees to it

	held  int // guarded by the budget for others than the reader
	since time.Time
	over  error // why the reading was cut short
}

const (
	// unfinishedGrace is how long a body or a message may take to come, besides
	// 1 s for each of uploadBytes that it may have.
	unfinishedGrace = 10 * time.Second
	uploadBytes     = 64 << 10

	// inflaterBytes is what the library holds for a compressed message.
	inflaterBytes = 44 << 10
)

// timeFor returns how long something of at most so many bytes may take to come.
func (u *unfinished) timeFor(bytes int) time.Duration {
	return u.grace + time.Duration(bytes)*time.Second/uploadBytes
}

// hold says how many bytes the reader holds now, before it waits for more. An
// error says that it has to give up. The first hold begins its time.
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

// makeRoomLocked cuts short who holds most longest. It frees an eighth at a
// time, so that a flood of newcomers does not look at all claims for each.
func (u *unfinished) makeRoomLocked() {
	now := time.Now()
	weight := func(c *claim) float64 { return float64(c.held) * float64(now.Sub(c.since)+1) }
	cs := slices.SortedFunc(maps.Keys(u.claims), func(a, b *claim) int { return cmp.Compare(weight(b), weight(a)) })
	for _, c := range cs {
		if u.total <= u.limit/8*7 {
			return
		}
		u.cutLocked(c, errUnfinished)
		u.cut++
	}
}

// cutLocked ends the wait of a reader. It holds the lock meanwhile, since
// afterwards the connection may be another request's.
func (u *unfinished) cutLocked(c *claim, err error) {
	u.dropLocked(c)
	c.over = err
	past := time.Unix(1, 0)
	if c.nc != nil {
		c.nc.SetReadDeadline(past)
	} else {
		http.NewResponseController(c.w).SetReadDeadline(past) // where a middleware hides it, the server's own remains
	}
}

// expire cuts short whose time is up.
func (u *unfinished) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.claims) == 0 {
		return
	}
	now := time.Now()
	for c := range u.claims {
		if c.wait > 0 && now.Sub(c.since) > c.wait {
			u.cutLocked(c, errTooSlow)
		}
	}
}

// end cuts short all requests: nothing that they bring can be published any
// more. WebSockets are closed in their own way.
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

// anyCut returns whether flush would return more than 0.
func (u *unfinished) anyCut() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cut > 0
}

// flush returns how many have made way since it was last called.
func (u *unfinished) flush() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.cut
	u.cut = 0
	return n
}
