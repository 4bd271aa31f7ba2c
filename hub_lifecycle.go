package channels

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/gate"
)

// lifecycle is how far a hub has come from New to Shutdown, and what it waits
// for on the way. The gates and atomics guard themselves; the other fields are
// set by New, and shutdownErr before down is closed. drain.go and shutdown.go move
// it on.
type lifecycle struct {
	started time.Time
	// ctx ends with the hub. Calls of the Store and the Mesh derive from it.
	ctx  context.Context
	stop context.CancelFunc

	calls gate.Gate // calls of the API that are under way
	tasks gate.Gate // goroutines that end by themselves: reads for subscribers, reports
	loops gate.Gate // the hub's own goroutines

	draining atomic.Bool     // /readyz says no
	hurry    context.Context // ended by skipDelay
	refusing atomic.Bool     // no new client is let in
	// skipDelay ends Options.DrainDelay, now or in advance. It may be repeated.
	skipDelay context.CancelFunc

	shutdown    sync.Once
	down        chan struct{} // closed when everything has ended
	shutdownErr error         // valid then
}

func (l *lifecycle) init() {
	l.started = time.Now()
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.hurry, l.skipDelay = context.WithCancel(context.Background())
	l.down = make(chan struct{})
}

// uptime is the hub's clock in seconds.
func (l *lifecycle) uptime() int64 { return clock(l.started).uptime() }

// every calls f once in each period, until the hub ends.
func (l *lifecycle) every(period time.Duration, f func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}
