package fanout

import "sync/atomic"

// Frames of one Group, which is a channel, make room for each other in a full
// queue. A Group may not be copied once it is used.
type Group struct{ engine *Engine }

// Group returns a new Group.
func (e *Engine) Group() Group { return Group{e} }

// A Cast is one frame on its way to many outboxes. It is counted once for all of
// them, since processors would contend for the counter (BenchmarkFanOut). A Cast
// belongs to one goroutine.
type Cast struct {
	f         *Frame
	sum       *atomic.Int64
	n, queued int
}

// Cast begins to send one of the Group's frames to up to n outboxes. Done must
// follow.
func (g *Group) Cast(f *Frame, n int) Cast {
	sum := g.engine.counter(0)
	f.hold(n, sum)
	return Cast{f: f, sum: sum, n: n}
}

// To sends the frame to one outbox.
func (c *Cast) To(o *Outbox, policy Policy) {
	if o.put(c.f, policy, true, true) {
		c.queued++
	}
}

// Done ends the Cast.
func (c *Cast) Done() {
	if c.queued > 0 && c.f.Kind == Message {
		c.f.Group.engine.Delivered.Add(int64(c.queued))
	}
	if c.f.letGo(c.n-c.queued, c.sum) && c.queued > 0 { // the writers were faster
		c.f.taken()
	}
}
