//go:build !windows

package redisstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// waitingFor returns how many callers wait for the next read of a part, or -1
// if there is none.
func (s *Store) waitingFor(p part) int {
	s.reads.mu.Lock()
	defer s.reads.mu.Unlock()
	if sh := s.reads.parts[p]; sh != nil && sh.next != nil {
		return sh.next.waiting
	}
	return -1
}

// A caller that joins a read after all others have left still gets it.
func TestCallerLeavesASharedRead(t *testing.T) {
	t.Parallel() // it waits between reads
	c := redistest.Start(t).Client()
	s := newStore(t, c)
	for i := range 20 {
		p := part{fmt.Sprint("c", i), store.Query{Limit: 1}}
		for range readBurst { // so that the next read waits for a moment
			_, err := s.Range(t.Context(), p.channel, p.query)
			require.NoError(t, err)
		}
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := s.Range(ctx, p.channel, p.query)
			left <- err
		}()
		require.Eventually(t, func() bool { return s.waitingFor(p) == 1 }, time.Minute, 100*time.Microsecond)
		leave()
		require.ErrorIs(t, <-left, context.Canceled)
		_, err := s.Range(t.Context(), p.channel, p.query)
		require.NoError(t, err)
	}
}

// hanging blocks a client's next command, whatever its context, like a
// connection that has died silently.
type hanging struct {
	next    atomic.Bool
	held    chan struct{} // closed when a command is blocked
	proceed chan struct{} // closed when the command may go on
}

func (h *hanging) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *hanging) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		if h.next.CompareAndSwap(true, false) {
			close(h.held)
			<-h.proceed
		}
		return next(ctx, c)
	}
}
func (h *hanging) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A hanging read that all callers have left delays no other read.
func TestAbandonedReadDelaysNoOthers(t *testing.T) {
	c, h := redistest.Start(t).Client(), &hanging{held: make(chan struct{}), proceed: make(chan struct{})}
	c.AddHook(h)
	s := newStore(t, c)
	t.Cleanup(func() { close(h.proceed) })
	h.next.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := s.Range(ctx, "c", store.Query{Limit: 1})
		left <- err
	}()
	<-h.held
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := s.Range(ctx, "c", store.Query{Limit: 1})
	require.NoError(t, err)
}
