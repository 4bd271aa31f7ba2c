package redisstore

import (
	"context"
	"sync"
	"time"

	"github.com/channels-go/channels/store"
)

// reads shares reads of the same part of a log: who asks while a read is under
// way waits for the next one, since the one under way may have missed what was
// appended just now, and all that wait are served by it. After a
// crowd has been disconnected it comes back within a second or two, too sparse
// to meet by itself: so the same part is read a few times at once, and then
// not more than so often in a second.
type reads struct {
	mu    sync.Mutex // guards the fields below, and what they lead to
	parts map[part]*shared
}

const (
	readBurst = 3                      // reads of the same part without a pause
	readPause = 200 * time.Millisecond // between those that follow
)

// part is what one Range asks for.
type part struct {
	channel string
	query   store.Query
}

// shared is who reads a part of a log, and who waits for it. Its goroutine
// begins with the first that asks, and ends a pause after the last one was
// served.
type shared struct {
	next  *reading // its read has not begun
	awake chan struct{}
}

// reading is one read for all that wait for it. It is cancelled where all of
// them have gone, but not before it has begun: others may still come to it.
type reading struct {
	waiting int // guarded by reads.mu
	cancel  context.CancelFunc
	ctx     context.Context
	done    chan struct{} // closed when page and err are there
	page    *page
	err     error
}

// share returns a page that others may have got, too.
func (r *reads) share(s *Store, ctx context.Context, p part) (*page, error) {
	r.mu.Lock()
	sh := r.parts[p]
	if sh == nil {
		sh = &shared{awake: make(chan struct{}, 1)}
		if !s.goes(func() { r.serve(s, p, sh) }) {
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
		sh.awake <- struct{}{} // has room: it is empty where next is nil
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

// serve reads a part of a log for as long as somebody asks for it.
func (r *reads) serve(s *Store, p part, sh *shared) {
	tokens := readBurst
	last := time.Now() // when a token was added last
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
		sh.next = nil // who comes from here on waits for the next one
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

// readUnlessLeft reads a part of a log. It returns when ctx ends, also where
// Redis hangs: who comes next gets a connection of his own.
func (s *Store) readUnlessLeft(ctx context.Context, p part) (*page, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type outcome struct {
		page *page
		err  error
	}
	done := make(chan outcome, 1)
	ok := s.goes(func() { // ends with the read, which the client's own timeouts bound
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
