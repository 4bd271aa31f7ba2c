package channels

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/fanout"
)

// A stream is one client of server-sent events, or a session over an HTTP stream
// (connect_stream.go). The goroutine of its HTTP handler drains the outbox.
type stream struct {
	client
	fanout.Outbox
	signal bell.Bell // something is queued
	cancel context.CancelCauseFunc

	// Of a session only:
	up      *upstream    // what comes up beside the stream
	waiting atomic.Int32 // requests that wait for room in it

	cut sync.Mutex // guards the fields below
	// finish takes the stream out of the hub; only the first call does. It is
	// the handler's last act, unless the handler is stuck in a write. It is nil
	// until the client is let in.
	finish func()
	rc     *http.ResponseController // nil if nothing more may be written
	giveUp *time.Timer              // if writes have no deadline
	late   *time.Timer              // since Kill, for a handler that is still stuck
}

// Wake lets the handler go on.
func (s *stream) Wake() { s.signal.Ring() }

var errStuck = errors.New("channels: the client does not read")

// Kill ends the stream at once, even if a write is stuck.
func (s *stream) Kill(err error) {
	s.cancel(err)
	s.cut.Lock()
	defer s.cut.Unlock()
	if s.rc == nil {
		return
	}
	wait := closeTimeout                  // a middleware may hold the write
	s.rc.SetReadDeadline(time.Unix(1, 0)) // net/http may be reading what is left of a body
	if errors.Is(s.rc.SetWriteDeadline(time.Unix(1, 0)), http.ErrNotSupported) {
		wait = 0
	}
	s.rc = nil
	if s.finish != nil { // or the handler still waits to be let in, and will see that it is not
		s.late = time.AfterFunc(wait, s.finish)
	}
}

// setDeadline bounds the next write; the zero time ends that. If a middleware
// hides the deadlines, a stuck write is left to the server, but the hub forgets the
// client.
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
		s.giveUp = time.AfterFunc(time.Until(t), func() { s.Kill(errStuck) })
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

// typeStream is the media type of server-sent events.
const typeStream = "text/event-stream"

// beginStream sets the headers of every stream. They tell proxies on the way to
// the client not to hold events back.
func beginStream(w http.ResponseWriter, as fanout.Format) {
	head := w.Header()
	switch as {
	case fanout.ClientLines:
		head.Set("Content-Type", typeLines)
	case fanout.ClientDelimited:
		head.Set("Content-Type", typeProtobuf)
	default:
		head.Set("Content-Type", typeStream+"; charset=utf-8")
	}
	head.Set("Cache-Control", "no-store, no-transform") // compressing would hold events back
	head.Set("X-Accel-Buffering", "no")                 // so would nginx
	w.WriteHeader(http.StatusOK)
}

// appendRetry tells a browser when to connect again. It is no block of its own,
// since some clients make an event of each block.
func appendRetry(b []byte, d time.Duration) []byte {
	return fmt.Appendf(b, "retry: %d\n", d.Milliseconds())
}

// refuseStream tells a client to come back later. An EventSource that gets an
// HTTP error gives up for good, so an error that will pass by itself is sent as a
// stream that ends at once. The client comes back after Retry-After, or later.
func refuseStream(w http.ResponseWriter, r *http.Request, e *Error) {
	wait := 3 * time.Second
	if n, err := strconv.Atoi(w.Header().Get("Retry-After")); err == nil {
		wait = max(wait, 2*min(time.Duration(n), maxRetryAfter)*time.Second)
	}
	as := fanout.SSE
	if r.URL.Query().Get("format") == formatEvent {
		as = fanout.Named
	}
	beginStream(w, as)
	w.Write(append(appendRetry(nil, backoff.Spread(wait)), newErrorFrame(e, nil).Bytes(as)...))
}

// maxRetryAfter keeps the time within what browsers take, in seconds.
const maxRetryAfter = 24 * 60 * 60

// serveStream answers GET /channel/{name}/ with server-sent events, as the
// HTML standard defines them (section 9.2), until either side ends. An error means
// that nothing was written. serveStream calls leave when the hub is done with the
// client.
func (h *Hub) serveStream(w http.ResponseWriter, r *http.Request, name string, info Client, q channelQuery, leave func()) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := newStream(w, cancel)
	defer s.returned()
	s.Init(h.fan, s, q.as)
	h.initClient(&s.client, &s.Outbox, name, info)
	s.heartbeat = q.heartbeat
	if err := s.letIn(ctx, q.start); err != nil {
		return err
	}
	defer s.endAfter(h.opts.streamTime(w))()
	return s.serve(ctx, w, leave, func() {
		s.admit()
		s.welcome(ctx, s.subs.first)
	})
}

func newStream(w http.ResponseWriter, cancel context.CancelCauseFunc) *stream {
	return &stream{signal: bell.New(), cancel: cancel, rc: http.NewResponseController(w)}
}

// serve writes what is queued until either side ends, and takes the client out of the
// hub. It calls begin before it writes, and leave when the hub is done with the client.
// An error means that nothing was written.
func (s *stream) serve(ctx context.Context, w http.ResponseWriter, leave, begin func()) error {
	h := s.hub
	if err := h.guard("the response writer", func() error { return h.canStream(w) }); err != nil {
		s.leave()
		s.Abandon(err)
		s.gone(err)
		return err
	}
	finish := sync.OnceFunc(func() {
		defer leave()
		s.leave()
		_, cause := s.Ended()
		if cause == nil {
			cause = context.Cause(ctx)
		}
		if errors.Is(cause, context.Canceled) {
			cause = nil // the client left
		}
		s.Abandon(cause)
		if s.up != nil { // no hook comes after OnDisconnect
			s.up.close()
			s.session.entering.Wait()
		}
		s.gone(cause)
	})
	defer finish()
	s.cut.Lock()
	s.finish = finish
	s.cut.Unlock()
	begin()
	if err := s.write(ctx, w, h.opts.WriteTimeout); err != nil {
		s.Abandon(err)
	}
	return nil
}

// streamPiece is how much a client has WriteTimeout to take. A slow but steady
// one could need any time for the whole.
const streamPiece = 4 << 10

// writeAll writes b and flushes. A server's own WriteTimeout would cut the stream,
// so each piece has a deadline; pieces that begin in its first eighth share it.
func (s *stream) writeAll(w http.ResponseWriter, rc *http.ResponseController, b []byte, timeout time.Duration) error {
	var until time.Time
	begin := func() {
		if now := time.Now(); until.Sub(now) < timeout/8*7 {
			until = now.Add(timeout)
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
	// Over HTTP/2 a deadline that passes ends the stream even if nothing is being
	// written.
	s.setDeadline(time.Time{})
	return nil
}

func (s *stream) write(ctx context.Context, w http.ResponseWriter, timeout time.Duration) error {
	rc := http.NewResponseController(w)
	beginStream(w, s.Format)
	var b []byte
	if s.Format.Events() {
		b = appendRetry(nil, backoff.Spread(retryTime))
		if s.several != nil {
			b = s.several.appendBeginning(b, s.Format)
		}
	} else if err := s.writeAll(w, rc, nil, timeout); err != nil { // clients wait for the headers, but not for long
		return err
	}
	s.Sent.Bytes.Add(int64(len(b)))
	s.hub.fan.Written.Add(int64(len(b)))
	var buf []byte
	var frames []*fanout.Frame
	for ctx.Err() == nil {
		frames = s.Take(frames[:0])
		more, last := s.join(&buf, frames)
		clear(frames)
		if b != nil {
			// The frames that wait already go out in the first write, and the
			// place where the stream begins in the same block.
			more, b = append(b, more...), nil
		}
		if len(more) > 0 {
			if err := s.writeAll(w, rc, more, timeout); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		if len(frames) == 0 {
			select {
			case <-s.signal:
			case <-ctx.Done():
			}
		}
	}
	return context.Cause(ctx)
}

// retryTime is when a browser comes back, on average, to a stream that ends or
// breaks.
const retryTime = 2 * time.Second

const defaultStreamTime = 15 * time.Minute

// errStreamTime is why a stream ends whose time is over.
var errStreamTime = errors.New("channels: the stream has reached Options.StreamTime; its client reconnects")

// streamTime is how long a stream through w may last; 0 is for ever. A write
// through a ResponseWriter that is not net/http's may not tell that the client has
// gone, so such a stream always has an end.
func (o *Options) streamTime(w http.ResponseWriter) time.Duration {
	switch {
	case o.StreamTime > 0:
		return o.StreamTime
	case isForeign(innermost(w)):
		return defaultStreamTime
	}
	return 0
}
