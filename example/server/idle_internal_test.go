package main

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Idle connections to Redis are closed before a usual server closes them,
// unless the URL sets another time.
func TestIdleConnectionsToRedis(t *testing.T) {
	for url, want := range map[string]time.Duration{
		"rediss://127.0.0.1:1/0":                       time.Minute,
		"redis://127.0.0.1:1/0?conn_max_idle_time=5m":  5 * time.Minute,
		"redis+sentinel://127.0.0.1:1/0?master_name=m": time.Minute,
		"unix:///nowhere":                              time.Minute,
	} {
		c, err := (&redisConfig{url: url}).client()
		require.NoError(t, err, url)
		require.Equal(t, want, c.(*redis.Client).Options().ConnMaxIdleTime, url)
		require.NoError(t, c.Close())
	}
}
