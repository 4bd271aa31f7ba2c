package fanout

import (
	"errors"
	"sync"
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

	// run's own.
	frames   []*Frame // what is being written, reused
	released released
	buf      []byte
	try      tryWrite
}

func newWriter(e *Engine) *writer {
	w := &writer{engine: e}
	w.work.L = &w.mu
	w.try.init()
	return w
}

// add queues a socket whose outbox has just been scheduled.
func (w *writer) add(s *Socket) {
	w.mu.Lock()
	w.ready = append(w.ready, s)
	first := len(w.ready) == 1
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
			w.drain(s)
		}
		w.released.flush(w.engine.counter(0))
		spare = batch
	}
}

// drain writes what is queued for a socket. One that does not take it all is
// handed to a goroutine of its own, which may wait.
func (w *writer) drain(s *Socket) {
	for range 4 {
		w.frames = s.take(w.frames[:0], &w.released)
		if len(w.frames) == 0 {
			return
		}
		b, last := s.Join(&w.buf, w.frames)
		if len(b) == 0 { // nothing to say in its format
			clear(w.frames)
			continue
		}
		n, err := w.try.write(s.raw, b)
		clear(w.frames)
		switch {
		case err != nil && !errors.Is(err, errWouldBlock):
			s.Kill(err)
			return
		case n < len(b):
			s.writeElsewhere(append([]byte(nil), b[n:]...), last)
			return
		case last:
			s.wroteLast()
			return
		}
	}
	w.add(s) // it is busy: the others have a turn first
}
