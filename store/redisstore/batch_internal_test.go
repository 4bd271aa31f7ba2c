package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// While Redis hangs, callers come and go. Their Appends are not kept.
func TestAbandonedAppendsAreNotKept(t *testing.T) {
	c := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { c.Close() })
	s := newStore(t, c)
	l := &s.lanes[0]
	l.flying = flights // the maximum is on its way

	e := store.Entry{Body: make([]byte, 1<<16)}
	before := basetest.Heap()
	for i := range 4 * batchCalls {
		ctx, leave := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := s.Append(ctx, "c", e, store.AppendOptions{Size: 1, TTL: time.Hour})
			failed <- err
		}()
		require.Eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.waiting) > 0 && l.waiting[len(l.waiting)-1].state.Load() == queued
		}, time.Minute, 20*time.Microsecond, i)
		leave()
		require.ErrorIs(t, <-failed, context.Canceled)
	}
	l.mu.Lock()
	require.LessOrEqual(t, len(l.waiting), batchCalls+1)
	l.mu.Unlock()
	require.Less(t, basetest.Heap()-before, int64(8<<20), "most of the 64 MiB must be freed")
}

// refusing answers one channel's commands like a Cluster whose slot moves.
type refusing struct {
	key     string
	proceed chan struct{} // closed when the next attempt may be made
}

type tryAgain struct{}

func (tryAgain) Error() string { return "TRYAGAIN Multiple keys request during rehashing of slot" }
func (tryAgain) RedisError()   {}

func (r *refusing) DialHook(next redis.DialHook) redis.DialHook { return next }
func (r *refusing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error {
		<-r.proceed
		return next(ctx, c)
	}
}
func (r *refusing) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		for _, c := range cmds {
			if c.Args()[3] == r.key {
				c.SetErr(tryAgain{})
				continue
			}
			c.(once).SetVal([]any{"epoch", int64(1), int64(0), int64(1)})
		}
		return tryAgain{}
	}
}

// An Append does not wait for the retry of another Append in its batch.
func TestAppendsOfABatchReturnSeparately(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { c.Close() })
	s := newStore(t, c)
	r := &refusing{key: s.keys.log("moving"), proceed: make(chan struct{})}
	c.AddHook(r)
	l := &s.lanes[0]
	l.flying = flights // until both wait
	ctx, cancel := context.WithCancel(t.Context())
	moving, staying := make(chan error, 1), make(chan error, 1)
	for name, done := range map[string]chan error{"moving": moving, "staying": staying} {
		go func() {
			_, err := s.Append(ctx, name, store.Entry{}, store.AppendOptions{Size: 1, TTL: time.Hour})
			done <- err
		}()
	}
	require.Eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.waiting) == 2 }, time.Minute, time.Millisecond)
	l.mu.Lock()
	batch := l.next()
	l.mu.Unlock()
	sent := make(chan struct{})
	go func() {
		s.sendBatch(batch)
		close(sent)
	}()
	var err error
	select {
	case err = <-staying:
	case <-time.After(time.Minute):
		err = context.DeadlineExceeded
	}
	require.Empty(t, moving, "the moving Append has not finished")
	cancel()
	close(r.proceed)
	<-sent
	require.NoError(t, err)
	require.ErrorIs(t, <-moving, context.Canceled)
}
