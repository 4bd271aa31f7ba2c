package redisstore

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// While Redis hangs, callers come and go. What they wanted to send goes with them.
func TestWhatNobodyWaitsForIsNotKept(t *testing.T) {
	c := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { c.Close() })
	s, err := New(c, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	l := &s.lanes[0]
	l.flying = flights // all that may be on their way are

	memory := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	e := store.Entry{Body: make([]byte, 1<<16)}
	before := memory()
	for i := range 4 * batchCalls {
		ctx, leave := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, _, err := s.Append(ctx, "c", e, store.AppendOptions{Size: 1, TTL: time.Hour})
			failed <- err
		}()
		require.Eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.waiting) > 0 && l.waiting[len(l.waiting)-1].state.Load() == queued
		}, 20*time.Second, 20*time.Microsecond, i)
		leave()
		require.ErrorIs(t, <-failed, context.Canceled)
	}
	l.mu.Lock()
	require.LessOrEqual(t, len(l.waiting), batchCalls+1)
	l.mu.Unlock()
	require.Less(t, memory()-before, int64(8<<20), "of 64 MiB")
}
