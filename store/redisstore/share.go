package redisstore

import (
	"context"
	"sync"
	"time"

	"github.com/channels-go/channels/store"
)

// reads shares reads of the same part of a log. A caller that asks during a
// read waits for the next one, since the running read may have missed the
// latest Append. One read serves all that wait for it.
//
// After many clients have lost their connections, they come back spread over a
// second or two, too sparsely to share reads by chance. So the same part is
// read a few times without a pause, and then at most once every readPause.
type reads struct {
	mu    sync.Mutex // guards the fields below and what they point to
	parts map[part]*shared
}

const (
	readBurst = 3                      // reads of the same part without a pause
	readPause = 200 * time.Millisecond // between the reads after those
)

// part is what one Range reads.
type part struct {
	channel string
	query   store.Query
}

// shared holds the pending read of one part of a log. Its goroutine starts with
// the first caller, and ends a pause after it has served the last one.
type shared struct {
	next  *reading // not yet begun
	awake chan struct{}
}

// reading is one read for all callers that wait for it. It is cancelled if all
// of them have gone, but only after it has begun: until then, others may still
// join it.
type reading struct {
	waiting int // guarded by reads.mu
	cancel  context.CancelFunc
	ctx     context.Context
	done    chan struct{} // closed when page and err are set
	page    *page
	err     error
}

// share returns a page that other callers may have got too.
func (r *reads) share(s *Store, ctx context.Context, p part) (*page, error) {
	r.mu.Lock()
	sh := r.parts[p]
	if sh == nil {
		sh = &shared{awake: make(chan struct{}, 1)}
		if !s.calls.Run(func() { r.serve(s, p, sh) }) {
			r.mu.Unlock()
			return nil, store.ErrClosed
		}
		if r.parts == nil {
			r.parts = make(map[part]*shared)
		}
		r.parts[p] = sh
	}
	if sh.next == nil {
		sh.next = &reading{done: make(chan struct{})}
		sh.next.ctx, sh.next.cancel = context.WithCancel(s.ctx)
		sh.awake <- struct{}{} // does not block: the channel is empty if next is nil
	}
	rd := sh.next
	rd.waiting++
	r.mu.Unlock()

	select {
	case <-rd.done:
		return rd.page, rd.err
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rd.waiting--; rd.waiting == 0 && sh.next != rd {
		rd.cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, store.ErrClosed
}

// serve reads a part of a log for as long as anyone asks for it.
func (r *reads) serve(s *Store, p part, sh *shared) {
	tokens := readBurst
	last := time.Now() // when a token was last added
	pause := time.NewTimer(readPause)
	defer pause.Stop()
	for {
		pause.Reset(readPause)
		select {
		case <-sh.awake:
		case <-pause.C:
		case <-s.ctx.Done():
		}
		if n := int(time.Since(last) / readPause); n > 0 {
			tokens, last = min(tokens+n, readBurst), time.Now()
		}
		r.mu.Lock()
		if sh.next == nil && (tokens == readBurst || s.ctx.Err() != nil) {
			delete(r.parts, p)
			r.mu.Unlock()
			return
		}
		wanted := sh.next != nil
		r.mu.Unlock()
		if !wanted {
			continue
		}
		for tokens == 0 {
			pause.Reset(readPause - time.Since(last))
			select {
			case <-pause.C:
			case <-s.ctx.Done():
			}
			tokens, last = 1, time.Now()
		}
		r.mu.Lock()
		rd := sh.next
		sh.next = nil // callers that come from here on wait for the next read
		select {
		case <-sh.awake:
		default:
		}
		if rd.waiting == 0 {
			rd.cancel()
		} else {
			tokens--
		}
		r.mu.Unlock()
		rd.page, rd.err = s.readUnlessLeft(rd.ctx, p)
		rd.cancel()
		close(rd.done)
	}
}

// readUnlessLeft reads a part of a log. It returns when ctx ends, even if Redis
// hangs. The next caller gets another connection.
func (s *Store) readUnlessLeft(ctx context.Context, p part) (*page, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type outcome struct {
		page *page
		err  error
	}
	done := make(chan outcome, 1)
	ok := s.calls.Run(func() { // ends with the read, which the client's own timeouts bound
		page, err := s.read(ctx, p)
		done <- outcome{page, err}
	})
	if !ok {
		return nil, store.ErrClosed
	}
	select {
	case o := <-done:
		return o.page, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
