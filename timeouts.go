package channels

import (
	"context"
	"time"
)

// The time that calls of the Store and of the Mesh have.

// storeContext bounds a call of the Store, except for those below.
func (h *Hub) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.opts.StoreTimeout)
}

// besides bounds other calls of the Store, and of the Mesh, between two
// heartbeats: if a part of the Store hangs, this replica must not seem dead.
const besides = 2 * time.Second

func (h *Hub) besidesContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, min(besides, h.opts.StoreTimeout))
}

// replicasTimeout is how long the Store may take to list the replicas. It is
// short: the list is needed most while the Store fails.
const replicasTimeout = time.Second
