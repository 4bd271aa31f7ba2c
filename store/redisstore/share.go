package redisstore

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/channels-go/channels/internal/bell"
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
	awake bell.Bell
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
		sh = &shared{awake: bell.New()}
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
		sh.awake.Ring()
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
	pace := rate.NewLimiter(rate.Every(readPause), readBurst)
	idle := time.NewTimer(readPause)
	defer idle.Stop()
	for {
		idle.Reset(readPause)
		select {
		case <-sh.awake:
			_ = pace.Wait(s.ctx) // it fails only after Close, which the read notices
		case <-idle.C:
		case <-s.ctx.Done():
		}
		r.mu.Lock()
		rd := sh.next
		if rd == nil {
			rested := pace.Tokens() >= readBurst || s.ctx.Err() != nil
			if rested {
				delete(r.parts, p)
			}
			r.mu.Unlock()
			if rested {
				return
			}
			continue
		}
		sh.next = nil // callers that come from here on wait for the next read
		wanted := rd.waiting > 0
		r.mu.Unlock()
		if wanted {
			rd.page, rd.err = s.read(rd.ctx, p)
		}
		rd.cancel()
		close(rd.done)
	}
}
