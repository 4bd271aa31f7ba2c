package fanout

// Frames of one Group, which is a channel, make room for each other in a full
// queue. A Group may not be copied once it is used.
type Group struct{ engine *Engine }

// Group returns a new Group.
func (e *Engine) Group() Group { return Group{e} }

// A Cast is one frame on its way to many outboxes. It is counted once for all of
// them, since processors would contend for the counter (BenchmarkFanOut). A Cast
// belongs to one goroutine.
type Cast struct {
	engine    *Engine
	f         *Frame
	n, queued int
	ready     *lanes // the sockets that are to be woken; nil until there is one
}

// Cast begins to send one of the Group's frames to up to n outboxes. Done must
// follow.
func (g *Group) Cast(f *Frame, n int) Cast {
	f.hold(n, g.engine.counter(0))
	return Cast{engine: g.engine, f: f, n: n}
}

// Fetch brings the outbox's first cache line near. Memory is far: to fetch some outboxes
// at a time, before a frame is sent to each of them, takes hardly longer than to fetch
// one, whereas the lock of each would wait for what is on its way (BenchmarkFanOut).
func (o *Outbox) Fetch() { o.socket.Load() }

// To sends the frame to one outbox.
func (c *Cast) To(o *Outbox, policy Policy) {
	o.mu.Lock()
	if o.state != open {
		o.mu.Unlock()
		return
	}
	if o.putLocked(c.f, policy, true) {
		c.queued++
	}
	if o.scheduled {
		o.mu.Unlock()
		return
	}
	o.scheduled = true
	s, lane := o.socket.Load(), o.lane
	o.mu.Unlock()
	if s == nil {
		o.owner.Wake()
		return
	}
	c.wake(s, lane)
}

// A lanes has sockets that are to be woken, for each writer of the Engine.
type lanes struct{ of [][]*Socket }

// laneBatch is how many sockets a writer gets at a time. It begins with the first ones
// while others are still queued for.
const laneBatch = 64

// wake has a writer drain a socket, at the latest by Done.
func (c *Cast) wake(s *Socket, lane uint16) {
	e := c.engine
	if c.n == 1 {
		e.writers[lane].add(s)
		return
	}
	if c.ready == nil {
		c.ready = e.lanes.Get().(*lanes)
	}
	l := &c.ready.of[lane]
	if *l = append(*l, s); len(*l) == laneBatch {
		e.writers[lane].add(*l...)
		*l = (*l)[:0]
	}
}

// Done ends the Cast.
func (c *Cast) Done() {
	e := c.engine
	if c.ready != nil {
		for i, l := range c.ready.of {
			if len(l) > 0 {
				e.writers[i].add(l...)
			}
			clear(l[:cap(l)])
			c.ready.of[i] = l[:0]
		}
		e.lanes.Put(c.ready)
	}
	if c.queued > 0 && c.f.Kind == Message {
		e.Delivered.Add(int64(c.queued))
	}
	if c.f.letGo(c.n-c.queued, e.counter(0)) && c.queued > 0 { // the writers were faster
		c.f.taken()
	}
}
