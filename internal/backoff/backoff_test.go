package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/backoff"
)

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := backoff.New()
		wait := func() time.Duration {
			begin := time.Now()
			require.True(t, b.Wait(ctx))
			return time.Since(begin)
		}
		for _, want := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000} {
			want *= time.Millisecond
			took := wait()
			require.GreaterOrEqual(t, took, want/2)
			require.Less(t, took, want*3/2)
		}
		b.Reset()
		require.Less(t, wait(), 150*time.Millisecond)
		cancel()
		require.False(t, b.Wait(ctx))
	})
}
