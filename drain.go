package channels

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/fanout"
)

// drainPerClient shortens Options.DrainTime if there are few clients: ten of them
// need no 5 s.
const drainPerClient = 5 * time.Millisecond

// backAtOnce is the time over which after_ms spreads the reconnects if clients are
// closed at once: if DrainTime is negative, or if less than a millisecond is left.
const backAtOnce = time.Second

// Drain prepares for Shutdown: it moves the clients to other replicas without a
// stampede. First /readyz says 503, and everything else goes on for
// Options.DrainDelay, in which load balancers notice and stop sending clients here.
// Then new connections are refused with 503 and the code "draining". Each client
// is told in how many milliseconds to connect anew,
// {"header":"reconnect","body":{"after_ms":…}}, and is closed with 1001 no later than
// that. A client of the client protocol is only closed, with 3001, over the same time.
// Publishing goes on, and reaches the clients that are still here. A client with
// a position resumes on another replica.
//
// Drain returns when the delay is over and all clients have gone, or with ctx's
// error. The delay takes at most half of the time that ctx has. A second Drain, or
// Shutdown, ends it. Go subscribers stay until Shutdown.
func (h *Hub) Drain(ctx context.Context) error {
	if !h.calls.Enter() {
		return ErrClosed
	}
	defer h.calls.Leave()
	if h.draining.Swap(true) {
		h.skipDelay()
	}
	// Tell the other replicas meanwhile: a Store that hangs costs clients no time.
	h.tasks.Run(func() {
		h.sayNow()
		if err := h.flush(h.ctx, true); err != nil {
			h.warn.storeFails(err)
		}
	})
	h.delay(ctx)
	h.refusing.Store(true)
	h.env.occupancy.drain()
	entering, cs := h.clients.all()
	for _, c := range entering {
		c.endIfClosing()
	}
	cs = slices.DeleteFunc(cs, (*client).inGo)
	rand.Shuffle(len(cs), func(i, j int) { cs[i], cs[j] = cs[j], cs[i] })
	spread := min(max(h.opts.DrainTime, 0), time.Duration(len(cs))*drainPerClient)
	if end, ok := ctx.Deadline(); ok {
		spread = min(spread, max(0, time.Until(end)*3/4)) // leave time for closing
	}
	begin := time.Now()
	turns := make([]time.Duration, len(cs)) // each at random within its own part of spread
	for i, c := range cs {
		turns[i] = within(spread*time.Duration(i)/time.Duration(len(cs)), spread*time.Duration(i+1)/time.Duration(len(cs)))
		back := turns[i]
		if spread < time.Millisecond { // which would tell all clients the same
			back = within(0, backAtOnce)
		}
		// Never 0: a client that comes back at once meets the same replica.
		c.answer(newHubFrame(headerReconnect, map[string]int64{"after_ms": max(1, back.Milliseconds())}))
	}
	for i, c := range cs {
		if !backoff.Pause(ctx, time.Until(begin.Add(turns[i]))) {
			return ctx.Err()
		}
		c.out.End([]*fanout.Frame{newCloseFrame(closeGoingAway, ErrDraining.Code)}, ErrDraining, false)
	}
	return awaitNone(ctx, h.clients.connections)
}

// within returns a time at random from lo to before hi.
func within(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + rand.N(hi-lo)
}

// delay gives load balancers time to notice that this replica is not ready any more.
func (h *Hub) delay(ctx context.Context) {
	d := h.opts.DrainDelay
	if end, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-ctx.Done(): // the clients are told all the same if it is the caller's that has ended
	case <-h.hurry.Done():
	}
}

// awaitNone waits until a count is zero.
func awaitNone(ctx context.Context, count func() int) error {
	for count() > 0 {
		if !backoff.Pause(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
