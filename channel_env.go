package channels

import (
	"context"
	"log/slog"
	"time"

	"github.com/channels-go/channels/internal/gate"
	"github.com/channels-go/channels/internal/turns"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// A channelEnv is all that channels know of the replica that they are on. They
// share one, which the hub makes. It does not change.
type channelEnv struct {
	clock      clock
	log        *slog.Logger
	mesh       mesh.Mesh // nil in one process
	queueBytes int       // Options.QueueBytes

	idle    *idleChannels
	report  *reporter
	counts  *counters
	watched *watched
	// occupancy is nil unless the app has OnOccupied or OnVacated.
	occupancy *occupancy

	ctx   context.Context // ends with the hub
	tasks *gate.Gate      // the goroutines that read from the Store for subscribers
	turns turns.Turns     // for what they do with it: many are woken at once

	// The Store, as the hub reads it (history_read.go).
	readLog func(ctx context.Context, channel string, q store.Query) (store.Page, error)
	tops    func(ctx context.Context, channels []string) ([]store.Position, error)
	begin   func(ctx context.Context, channel string) (store.Position, error)

	storeFailed func(error) // logs it
	lagged      func()      // notes that messages were missing that no mesh told of
}

func (h *Hub) channelEnv() *channelEnv {
	return &channelEnv{
		clock:       clock(h.started),
		log:         h.log,
		mesh:        h.mesh,
		queueBytes:  h.opts.QueueBytes,
		idle:        &h.channels.idle,
		report:      &h.report,
		counts:      &h.stats,
		watched:     &h.channels.watched,
		occupancy:   newOccupancy(h),
		ctx:         h.ctx,
		tasks:       &h.tasks,
		turns:       h.turns,
		readLog:     h.readLog,
		tops:        h.tops,
		begin:       h.begin,
		storeFailed: h.warn.storeFails,
		lagged:      h.vitals.lag,
	}
}

// A clock counts seconds since a time. Setting the system's clock does not change it.
type clock time.Time

func (c clock) uptime() int64 { return int64(time.Since(time.Time(c)) / time.Second) }
