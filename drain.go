package channels

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/store"
)

// drainPerClient shortens Options.DrainTime if there are few clients: ten of them
// need no 5 s.
const drainPerClient = 5 * time.Millisecond

// backAtOnce is over how long reconnects are spread if the connections are closed
// without a delay.
const backAtOnce = time.Second

// Drain prepares for Shutdown: it moves the clients to other replicas without a
// stampede. First /readyz says 503, and everything else goes on for
// Options.DrainDelay, in which load balancers notice and stop sending clients here.
// Then new connections are refused with 503 and the code "draining". Each client
// gets {"header":"reconnect","body":{"after_ms":…}}, which tells it when to connect
// anew, and is closed with 1001 by then. Publishing goes on, and reaches the
// clients that are still here. A client with a position resumes on another replica.
//
// Drain returns when the delay is over and all clients have gone, or with ctx's
// error. The delay takes at most half of the time that ctx has. A second Drain, or
// Shutdown, ends it. Go subscribers stay until Shutdown.
func (h *Hub) Drain(ctx context.Context) error {
	if !h.calls.Enter() {
		return ErrClosed
	}
	defer h.calls.Leave()
	if h.leaving.Swap(true) {
		h.skipDelay()
	}
	// Tell the other replicas meanwhile: a Store that hangs costs clients no time.
	h.background(func() {
		if err := h.flush(h.ctx, true); err != nil {
			h.warnStore(err)
		}
	})
	h.delay(ctx)
	h.draining.Store(true)
	for _, c := range h.clients.newcomers() {
		c.mindTheEnd()
	}
	connected := func(c *client) bool { return !c.inGo() }
	cs := h.clients.all(connected)
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
		if spread == 0 {
			back = within(0, backAtOnce)
		}
		// Never 0: a client that comes back at once meets the same replica.
		c.answer(newHubFrame(headerReconnect, map[string]int64{"after_ms": max(1, back.Milliseconds())}))
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for i, c := range cs {
		t.Reset(time.Until(begin.Add(turns[i])))
		select {
		case <-t.C:
		case <-ctx.Done():
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
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.hurry:
	case <-ctx.Done(): // the clients are told all the same
	}
}

// awaitNone waits until a count is zero.
func awaitNone(ctx context.Context, count func() int) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for count() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Shutdown ends the hub. Calls of its methods return [ErrClosed], publishes under
// way are completed, and all clients are closed with 1001 after what is queued for
// them. If ctx ends first, clients are cut, calls of the Store end, and Shutdown
// returns ctx's error.
//
// When Shutdown returns, the hub has freed what it holds, and this replica has left
// the Store. If a hook, the Store or a middleware does not return, Shutdown waits
// for it until a second after ctx, and the rest is done when it does. A second
// Shutdown waits for the first, or for its own ctx.
//
// Messages of other replicas arrive until the last client has gone, and
// acknowledged messages have been handed to the Mesh. Close the Mesh after
// Shutdown: its Close sends what is still queued there.
//
// No hook may call Shutdown, which waits for the hooks.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.shutdown.Do(func() {
		h.leaving.Store(true)
		h.draining.Store(true) // from now on, no client is let in
		h.skipDelay()
		h.calls.Shut()
		h.unfinished.end()
		go func() { // ends with all that the hub has started; Shutdown waits for it as long as it may
			h.shutdownErr = h.end(ctx)
			close(h.down)
		}()
	})
	select {
	case <-h.down:
		return h.shutdownErr
	case <-ctx.Done():
	}
	late := time.NewTimer(endGrace)
	defer late.Stop()
	select {
	case <-h.down:
		return h.shutdownErr
	case <-late.C:
		return ctx.Err()
	}
}

// endGrace is how long Shutdown waits after its context has ended: everything that
// is not stuck ends at once then.
const endGrace = time.Second

func (h *Hub) end(ctx context.Context) error {
	for _, c := range h.clients.newcomers() {
		c.mindTheEnd() // a client that is being let in is a call under way
	}
	late := h.calls.Wait(ctx)
	for _, c := range h.clients.all(nil) {
		c.out.End(farewell(ErrClosed, closeGoingAway), ErrClosed, false)
		if c.inGo() {
			c.out.Cut(ErrClosed) // its reader may be gone; what is queued can still be read
		}
	}
	if err := awaitNone(ctx, h.clients.count); err != nil {
		late = err
		for _, c := range h.clients.all(nil) {
			c.out.Cut(ErrClosed)
		}
	}
	h.fan.Conns.Shut()
	if err := h.fan.Conns.Wait(ctx); err != nil {
		late = err
	}

	// What is still under way is stuck, or about to end. First end what needs
	// the Store and the Mesh, then what may be in the app's own code.
	forever := context.Background()
	h.stop()
	h.tasks.Shut()
	h.tasks.Wait(forever) // their context has ended
	h.fan.Stop()
	h.loops.Shut()
	h.loops.Wait(forever)
	if h.mesh != nil { // after the last canary; a replica that misses it sees the heartbeats end
		h.control(forever, "", controlBye, control{})
	}
	h.forget()
	h.fan.Conns.Wait(forever)
	h.calls.Wait(forever)
	if h.owned {
		late = errors.Join(late, h.store.Close())
	}
	return late
}

// forget takes this replica out of the Store.
func (h *Hub) forget() {
	ctx, cancel := h.storeContext(context.Background())
	defer cancel()
	if err := h.store.Forget(ctx, h.opts.ReplicaID); err != nil && !errors.Is(err, store.ErrClosed) {
		// Not an error for the caller: the Store forgets the replica by itself.
		h.log.Warn("leaving the store", "err", err)
	}
}
