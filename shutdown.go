package channels

import (
	"context"
	"errors"
	"time"

	"github.com/channels-go/channels/store"
)

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
		h.draining.Store(true)
		h.refusing.Store(true) // from now on, no client is let in
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
	case <-ctx.Done():
		select {
		case <-h.down:
		case <-time.After(endGrace):
			return ctx.Err()
		}
	}
	return h.shutdownErr
}

// endGrace is how long Shutdown waits after its context has ended: everything that
// is not stuck ends at once then.
const endGrace = time.Second

func (h *Hub) end(ctx context.Context) error {
	entering, _ := h.clients.all()
	for _, c := range entering {
		c.endIfClosing() // a client that is being let in is a call under way
	}
	late := h.calls.Wait(ctx)
	_, cs := h.clients.all()
	for _, c := range cs {
		c.out.End(farewell(ErrClosed, closeGoingAway), ErrClosed, false)
		if c.inGo() {
			c.out.Cut(ErrClosed) // its reader may be gone; what is queued can still be read
		}
	}
	if err := awaitNone(ctx, h.clients.count); err != nil {
		late = err
		_, cs := h.clients.all()
		for _, c := range cs {
			c.out.Cut(ErrClosed)
		}
	}
	h.fan.Conns.Shut()
	if err := h.fan.Conns.Wait(ctx); err != nil {
		late = err
	}

	if err := h.env.occupancy.close(ctx); err != nil {
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
	if h.holds.used.Load() { // say who has left; other replicas inherit those who may come back
		h.tellHolds(ctx)
	}
	if h.mesh != nil { // after the last canary; a replica that misses it sees the heartbeats end
		h.control(forever, "", controlBye, control{})
	}
	h.leaveStore()
	h.fan.Conns.Wait(forever)
	h.calls.Wait(forever)
	if h.ownsStore() {
		late = errors.Join(late, h.store.Close())
	}
	return late
}

// leaveStore takes this replica out of the Store.
func (h *Hub) leaveStore() {
	ctx, cancel := h.storeContext(context.Background())
	defer cancel()
	if err := h.store.Forget(ctx, h.opts.ReplicaID); err != nil && !errors.Is(err, store.ErrClosed) {
		// Not an error for the caller: the Store forgets the replica by itself.
		h.log.Warn("this replica could not leave the store, which forgets it by itself", "err", err)
	}
}
