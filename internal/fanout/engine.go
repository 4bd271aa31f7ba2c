package fanout

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/gate"
	"github.com/channels-go/channels/internal/latency"
	"github.com/channels-go/channels/internal/poll"
)

// A Config configures an Engine.
type Config struct {
	QueueBytes    int           // how much may wait for one receiver
	CompressBytes int           // the shortest text of a Group's frame that is deflated
	WriteTimeout  time.Duration // how long a client may take nothing of what is written
	Slow          Farewell      // for a receiver whose queue is full
	Stopped       error         // why a socket ends that begins to write after Conns is shut
	Poll          bool          // sockets may rest: see Socket.Rest
}

// A Farewell is what a receiver is sent before its outbox ends, and why it ends.
type Farewell struct {
	Last  []*Frame
	Cause error
}

// An Engine writes the sockets of many clients, and counts what waits for all
// receivers. Its methods may be called concurrently.
type Engine struct {
	Counters
	// Conns counts the connections that are read, and the goroutines that belong to one.
	// Shut it before Stop: after that no socket may begin to write.
	Conns gate.Gate

	config  Config
	started time.Time // the clock of sockets' deadlines
	writers []*writer
	lanes   sync.Pool // of *lanes, for Casts
	polls   sync.Once
	poller  *poll.Poller  // set by polls: see polling
	eager   atomic.Int32  // how many of the next messages are sampled in any case: see Sample
	running gate.Gate     // the writers
	dealt   atomic.Uint32 // counters
	turn    atomic.Uint32 // the next socket's writer; apart from dealt, since a socket takes a counter too
	queued  [16]counter   // in several parts, so that processors do not contend for one
}

// Counters are an Engine's totals.
type Counters struct {
	Slow       atomic.Int64 // receivers that were sent Config.Slow
	Dropped    atomic.Int64 // frames, by DropOldest
	Superseded atomic.Int64 // frames, by KeepLatest, which is meant to drop them
	Deflated   atomic.Int64 // frames, each once for all its receivers

	// Each channel's fan-out adds to Delivered once, and each round of a writer to Written.
	Delivered atomic.Int64 // messages that were queued, once for each receiver
	Written   atomic.Int64 // bytes that were handed to receivers' connections

	// Latency is how long sampled messages took from their publish, or from their arrival
	// here, until the last receiver's writer had taken them (sample.go).
	Latency latency.Histogram

	pressed atomic.Bool // a queue is more than half full
	_       [64]byte    // keeps what follows, which is only read, off these cache lines
}

type counter struct {
	atomic.Int64
	_ [56]byte // keeps neighbours off one cache line
}

// New returns an Engine, whose writers Start starts.
func New(c Config) *Engine {
	e := &Engine{config: c, started: time.Now(), writers: make([]*writer, runtime.GOMAXPROCS(0))}
	for i := range e.writers {
		e.writers[i] = newWriter(e)
	}
	e.lanes.New = func() any { return &lanes{make([][]*Socket, len(e.writers))} }
	return e
}

// Start starts the writers, one for each processor.
func (e *Engine) Start() {
	for _, w := range e.writers {
		e.running.Run(w.run)
	}
}

// Stop stops the writers once they have written what is queued, and waits for them.
// Sockets that still rest are woken.
func (e *Engine) Stop() {
	e.polls.Do(func() {})
	if e.poller != nil {
		e.poller.Close()
	}
	for _, w := range e.writers {
		w.stop()
	}
	e.running.Shut()
	e.running.Wait(noContext)
}

// polling starts the poller when the first socket rests: many hubs never have one. It
// returns nil if there is none, so that each connection that is read has a goroutine.
func (e *Engine) polling() *poll.Poller {
	e.polls.Do(func() {
		if !e.config.Poll {
			return
		}
		switch p, err := poll.New(); {
		case err != nil:
		case e.running.Run(p.Run):
			e.poller = p
		default: // it is stopped
			p.Close()
		}
	})
	return e.poller
}

// Queued returns how many bytes wait in all outboxes. A frame in many of them
// counts once.
func (e *Engine) Queued() (n int64) {
	for i := range e.queued {
		n += e.queued[i].Load()
	}
	return n
}

// Counter returns one of the counters that Queued sums up, for an outbox, or for
// other bytes that wait for a receiver.
func (e *Engine) Counter() *atomic.Int64 { return e.counter(e.dealt.Add(1)) }

func (e *Engine) counter(i uint32) *atomic.Int64 { return &e.queued[i%uint32(len(e.queued))].Int64 }

// Pressed reports whether a queue has become more than half full since Pressed
// last said so. If processors are few, a busy sender keeps the writers from
// running; then it should let them.
func (e *Engine) Pressed() bool { return e.pressed.Load() && e.pressed.Swap(false) }
