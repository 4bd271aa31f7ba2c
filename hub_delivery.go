package channels

import (
	"os"
	"sync/atomic"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/internal/turns"
)

// delivery is what messages go through on this replica, from the table of
// channels to the fan-out, which queues and writes them. Its parts have locks of
// their own: hub.go has their order.
type delivery struct {
	channels channelTable
	env      *channelEnv // what channels know of this replica
	clients  clientTable
	talkers  talkers
	streamed streamTable    // the sessions whose commands come beside a stream
	fan      *fanout.Engine // queues and writes what goes to clients

	observers atomic.Pointer[observers] // nil without observers (observer.go)

	feeds    feeds       // the subscribers of patterns
	taps     taps        // the Bridges that get every message
	prefixes prefixes    // what the mesh is asked for, for these two
	losses   losses      // what the mesh may have lost
	turns    turns.Turns // for what a client that comes back has missed
	stats    counters
}

func (d *delivery) init(o *Options) {
	d.clients.init(o.ReplicaID, o.PingPeriod)
	d.channels.init()
	d.streamed.byKey = make(map[string]*stream)
	d.taps.all.Store(new([]*tap))
	d.prefixes.init(o)
	d.losses.wake = bell.New()
	d.turns = turns.New()
	d.fan = fanout.New(fanout.Config{
		QueueBytes:    o.QueueBytes,
		CompressBytes: o.CompressBytes,
		WriteTimeout:  o.WriteTimeout,
		Slow:          fanout.Farewell{Last: farewell(ErrSlowSubscriber, closeTryAgain), Cause: ErrSlowSubscriber},
		Stopped:       ErrClosed,
		Poll:          os.Getenv("CHANNELS_POLLER") != "off",
	})
}
