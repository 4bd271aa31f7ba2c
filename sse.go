package channels

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// A stream is one client of server-sent events. The goroutine of its HTTP
// handler drains the outbox.
type stream struct {
	client
	signal chan struct{} // something is queued
	cancel context.CancelCauseFunc

	// finish takes the stream out of the hub; only the first call does. It is
	// the handler's last act, unless the handler is stuck in a write.
	finish func()

	cut    sync.Mutex               // guards the fields below
	rc     *http.ResponseController // nil when nothing more may be written
	giveUp *time.Timer              // where writes have no deadline
	late   *time.Timer              // since kill, for a handler that is stuck all the same
}

func (s *stream) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

var errStuck = errors.New("channels: the client does not read")

// kill ends the stream at once, a write that is stuck too.
func (s *stream) kill(err error) {
	s.cancel(err)
	s.cut.Lock()
	defer s.cut.Unlock()
	if s.rc == nil {
		return
	}
	wait := closeTimeout // a middleware may hold the write
	if errors.Is(s.rc.SetWriteDeadline(time.Unix(1, 0)), http.ErrNotSupported) {
		wait = 0
	}
	s.rc = nil
	s.late = time.AfterFunc(wait, s.finish)
}

// setDeadline bounds the next write; the zero time ends that. Where a
// middleware hides the deadlines, a write that takes too long stays the
// server's, but the hub forgets the client.
func (s *stream) setDeadline(t time.Time) {
	s.cut.Lock()
	defer s.cut.Unlock()
	switch {
	case s.rc == nil:
	case s.giveUp != nil && t.IsZero():
		s.giveUp.Stop()
	case s.giveUp != nil:
		s.giveUp.Reset(time.Until(t))
	case errors.Is(s.rc.SetWriteDeadline(t), http.ErrNotSupported):
		s.giveUp = time.AfterFunc(time.Until(t), func() { s.kill(errStuck) })
	}
}

// returned says that w is the server's again.
func (s *stream) returned() {
	s.cut.Lock()
	defer s.cut.Unlock()
	s.rc = nil
	for _, t := range []*time.Timer{s.giveUp, s.late} {
		if t != nil {
			t.Stop()
		}
	}
}

// retryMillis is after what time a browser connects again.
const retryMillis = "retry: 1000\n\n"

// refuseStream tells a browser to come back later. An EventSource that gets an
// HTTP error gives up for good, so what will pass by itself is told as a
// stream that ends at once. Programs get the error.
func refuseStream(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	wait := 3
	if n, err := strconv.Atoi(w.Header().Get("Retry-After")); err == nil {
		wait = max(wait, n)
	}
	fmt.Fprintf(w, "retry: %d000\n\n%s", wait, newErrorFrame(e, nil).bytes(formatSSE))
}

// serveStream answers GET /channel/{name}/ with server-sent events, as the
// HTML standard defines them (section 9.2), until either side ends. An error
// means that nothing was written. It calls leave when the hub is done with it.
func (h *Hub) serveStream(w http.ResponseWriter, r *http.Request, name string, info Client, since *Position, leave func()) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := &stream{signal: make(chan struct{}, 1), cancel: cancel, rc: http.NewResponseController(w)}
	defer s.returned()
	h.initClient(&s.client, s, formatSSE, name, info)
	if err := s.letIn(ctx, since); err != nil {
		return err
	}
	if err := h.guard("the response writer", func() error { return canFlush(w) }); err != nil {
		s.leave()
		s.abandon(err)
		s.gone(err)
		return err
	}
	s.finish = sync.OnceFunc(func() {
		defer leave()
		s.leave()
		_, cause := s.ended()
		if cause == nil {
			cause = context.Cause(ctx)
		}
		if errors.Is(cause, context.Canceled) {
			cause = nil // the client left
		}
		s.abandon(cause)
		s.gone(cause)
	})
	defer s.finish()
	s.admit()
	s.welcome(ctx)
	if err := s.write(ctx, w); err != nil {
		s.abandon(err)
	}
	return nil
}

// streamPiece is what a client has WriteTimeout to take: of the whole, a slow
// but steady one could need any time.
const streamPiece = 4 << 10

// writeAll writes b and flushes. A server's own WriteTimeout would cut the
// stream: each piece has a deadline of its own instead, which serves for those
// that begin in its first eighth, too.
func (s *stream) writeAll(w http.ResponseWriter, rc *http.ResponseController, b []byte) error {
	var until time.Time
	begin := func() {
		if now := time.Now(); until.Sub(now) < s.hub.opts.WriteTimeout/8*7 {
			until = now.Add(s.hub.opts.WriteTimeout)
			s.setDeadline(until)
		}
	}
	for len(b) > 0 {
		begin()
		n := min(len(b), streamPiece)
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	begin()
	if err := rc.Flush(); err != nil {
		return err
	}
	// Over HTTP/2 a deadline that passes ends the stream, also when nothing is
	// being written.
	s.setDeadline(time.Time{})
	return nil
}

func (s *stream) write(ctx context.Context, w http.ResponseWriter) error {
	rc := http.NewResponseController(w)
	head := w.Header()
	head.Set("Content-Type", "text/event-stream; charset=utf-8")
	head.Set("Cache-Control", "no-store")
	head.Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	b, last := []byte(retryMillis), false
	s.out.bytes.Add(int64(len(b)))
	var buf []byte
	var frames []*frame
	for {
		if len(b) > 0 {
			if err := s.writeAll(w, rc, b); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		frames = s.take(frames[:0], writeBytes)
		if len(frames) == 0 {
			select {
			case <-s.signal:
				b = nil
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		b, last = s.join(&buf, frames)
		clear(frames)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
