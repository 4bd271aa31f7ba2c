package fanout

import "time"

// Latency is measured for a sample of messages, since reading the clock twice would cost
// a twentieth of a publish. The message's frame carries its Start. Who lets go of it
// last, of all outboxes that it waited in, adds to Counters.Latency: so it counts from
// the publish to the last write. What is dropped, or waits for a connection that ends, is
// not counted.

// A Start is when a sampled message came, in microseconds of its Engine's clock. It
// wraps after 71 minutes. For a message that is not sampled it is 0.
type Start uint32

// Each second, the first eagerSamples messages are sampled, and of the others one in
// sampleEvery: a quiet hub has a sample, too, and a busy one pays little.
const (
	eagerSamples = 64
	sampleEvery  = 64
)

// Sample is called for each message that comes, after n others, and says whether it is
// sampled.
func (e *Engine) Sample(n int64) Start {
	if e.eager.Load() > 0 && e.eager.Add(-1) >= 0 || n%sampleEvery == 0 {
		return e.now()
	}
	return 0
}

// Tick is called once a second.
func (e *Engine) Tick() { e.eager.Store(eagerSamples) }

func (e *Engine) now() Start { return max(1, Start(time.Since(e.started)/time.Microsecond)) }

// Begin gives the frame the message's Start, before it is sent.
func (f *Frame) Begin(s Start) {
	if s != 0 {
		f.start.Store(uint32(s))
	}
}

// taken follows when the last outbox in which the frame waited has let go of it.
func (f *Frame) taken() {
	if f.start.Load() == 0 {
		return
	}
	if s := Start(f.start.Swap(0)); s != 0 {
		e := f.Group.engine
		e.Latency.Add(time.Duration(e.now()-s) * time.Microsecond)
	}
}
