package fanout

import (
	"errors"
	"github.com/channels-go/channels/internal/rawio"
	"runtime"
	"sync"
	"sync/atomic"
)

// A writer drains the outboxes of its share of the sockets: it takes all that is
// queued for one and makes a single non-blocking write. There is one for each
// processor, so an idle connection needs no goroutine for writing. Engine.Start
// starts it; Engine.Stop stops it and waits for it.
type writer struct {
	engine *Engine

	mu      sync.Mutex // guards the fields below
	ready   []*Socket
	stopped bool
	work    sync.Cond

	drainer // run's own
}

// A drainer makes the writes of one socket after another. It belongs to one goroutine.
type drainer struct {
	frames   []*Frame // what is being written, reused
	released released
	written  int64 // bytes that Counters.Written lacks
	joined   bool  // a write had several frames since this was set to false
	buf      []byte
	try      tryWrite
}

// drainers are for Socket.Write.
var drainers = sync.Pool{New: func() any {
	d := &drainer{}
	d.try.init()
	return d
}}

// flush counts what was gathered since the last time. sum is one of the Engine's
// counters of what waits.
func (d *drainer) flush(e *Engine, sum *atomic.Int64) {
	d.released.flush(sum)
	e.Written.Add(d.written)
	d.written = 0
}

func newWriter(e *Engine) *writer {
	w := &writer{engine: e}
	w.work.L = &w.mu
	w.try.init()
	return w
}

// add queues sockets whose outboxes have just been scheduled.
func (w *writer) add(s ...*Socket) {
	w.mu.Lock()
	first := len(w.ready) == 0
	w.ready = append(w.ready, s...)
	w.mu.Unlock()
	if first {
		w.work.Signal()
	}
}

func (w *writer) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.work.Signal()
}

func (w *writer) run() {
	var spare []*Socket
	for {
		if w.joined {
			// More comes than is written. Senders that can run have a turn first: what they
			// queue is joined to what waits, and a write of many frames takes hardly longer
			// than one of few.
			w.joined = false
			runtime.Gosched()
		}
		w.mu.Lock()
		for len(w.ready) == 0 && !w.stopped {
			w.work.Wait()
		}
		if len(w.ready) == 0 {
			w.mu.Unlock()
			return
		}
		batch := w.ready
		w.ready = spare[:0]
		w.mu.Unlock()
		for i, s := range batch {
			batch[i] = nil
			if !w.drain(s) {
				w.add(s) // it is busy: the others have a turn first
			}
		}
		w.flush(w.engine, w.engine.counter(0))
		spare = batch
	}
}

// drain writes what is queued for a socket. One that does not take it all is
// handed to a goroutine of its own, which may wait. If drain returns false, it is
// still scheduled, and there may be more to write.
func (d *drainer) drain(s *Socket) (done bool) {
	for range 4 {
		d.frames = s.take(d.frames[:0], &d.released)
		if len(d.frames) == 0 {
			return true
		}
		d.joined = d.joined || len(d.frames) > 1 && d.frames[0].Kind == Message // and no ping that rides
		b, last := s.join(&d.buf, d.frames)
		d.written += int64(len(b))
		if len(b) == 0 { // nothing to say in its format
			clear(d.frames)
			continue
		}
		if b[0] == opPing {
			s.muffle()
		}
		n, err := d.try.write(s.raw, b)
		clear(d.frames)
		switch {
		case err != nil && !errors.Is(err, rawio.ErrWouldBlock):
			s.Kill(err)
			return true
		case n < len(b):
			s.writeElsewhere(append([]byte(nil), b[n:]...), last)
			return true
		case last:
			s.wroteLast()
			return true
		}
	}
	return false
}
