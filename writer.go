package channels

import (
	"errors"
	"sync"
)

// A writer drains the outboxes of its share of the connections: it takes all
// that is queued for one and makes a single non-blocking write. There is one
// for each processor, so that an idle connection needs no goroutine for
// writing. New starts it, Shutdown stops it and waits for it.
type writer struct {
	hub *Hub

	mu      sync.Mutex // guards the fields below
	ready   []*conn
	stopped bool
	work    sync.Cond

	frames   []*frame // what is being written, reused
	released released
	buf      []byte
	try      tryWrite
}

// writeBytes is how much is written at once, at the most, unless a single
// frame is longer.
const writeBytes = 64 << 10

func newWriter(h *Hub) *writer {
	w := &writer{hub: h}
	w.work.L = &w.mu
	w.try.init()
	return w
}

// add queues a connection whose outbox has just been scheduled.
func (w *writer) add(c *conn) {
	w.mu.Lock()
	w.ready = append(w.ready, c)
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
	var spare []*conn
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
		for i, c := range batch {
			batch[i] = nil
			w.drain(c)
		}
		w.released.flush(w.hub.queued.counter(0))
		spare = batch
	}
}

// drain writes what is queued for c. A connection that does not take it all
// is handed to a goroutine of its own, which may wait.
func (w *writer) drain(c *conn) {
	for range 4 {
		w.frames = c.take(w.frames[:0], writeBytes, &w.released)
		if len(w.frames) == 0 {
			return
		}
		b, last := c.join(&w.buf, w.frames)
		n, err := w.try.write(c.raw, b)
		clear(w.frames)
		switch {
		case err != nil && !errors.Is(err, errWouldBlock):
			c.kill(err)
			return
		case n < len(b):
			rest := append([]byte(nil), b[n:]...)
			if !c.hub.conns.Run(func() { c.writeRest(rest, last) }) {
				c.kill(ErrClosed)
			}
			return
		case last:
			c.wroteLast()
			return
		}
	}
	w.add(c) // it is busy: the others have a turn first
}

// join returns the frames as one run of bytes, which are to be written now:
// the only frame itself, or a copy in *buf.
func (c *client) join(buf *[]byte, frames []*frame) (b []byte, last bool) {
	messages := int64(0)
	if len(frames) == 1 {
		b, last = frames[0].bytes(c.format), frames[0].last
		if frames[0].head > 0 {
			messages = 1
		}
	} else {
		b = (*buf)[:0]
		for _, f := range frames {
			b = append(b, f.bytes(c.format)...)
			last = last || f.last
			if f.head > 0 {
				messages++
			}
		}
		if *buf = b; cap(b) > 4*writeBytes {
			*buf = nil // a rare long frame is not to be kept
		}
	}
	// Counted before the write: once a client has a message, it is counted.
	c.out.messages.Add(messages)
	c.out.bytes.Add(int64(len(b)))
	return b, last
}
