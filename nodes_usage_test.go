package channels_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// Replicas tell each other what they take of their machines, but not the clients.
func TestReplicasTellWhatTheyTake(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		all, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, all, 2)
		for _, one := range all {
			require.Equal(t, runtime.Version(), one.GoVersion, one.ID)
			require.Equal(t, runtime.GOMAXPROCS(0), one.Processors, one.ID)
			require.Equal(t, 77, one.MaxConnections, one.ID)
			require.Greater(t, one.Memory, int64(1<<20), one.ID)
			require.GreaterOrEqual(t, one.CPU, 0.0, one.ID)
			require.Equal(t, 4500*time.Millisecond, one.Uptime+one.Seen, one.ID)
		}
		require.NotContains(t, get(r.hubs[0], "/v1/nodes").Body.String(), runtime.Version())
		require.NotContains(t, get(r.hubs[0], "/v1/nodes").Body.String(), "max_connections")
	}, func(_ int, o *channels.Options) { o.MaxConnections = 77 })
}

// A replica tells how long its messages took lately, and nothing when there were none.
func TestReplicasTellHowQuickTheyAre(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	self := func() channels.Replica {
		all, err := s.Hub.Replicas(t.Context())
		require.NoError(t, err)
		return all[0]
	}
	basetest.Eventually(t, "a latency", func() bool {
		s.PublishGo("a", "1")
		w.want("m", "1")
		r := self()
		require.LessOrEqual(t, r.LatencyP50, r.LatencyP99)
		return r.LatencyP50 > 0
	})
	basetest.Eventually(t, "none of an idle hub", func() bool { return self().LatencyP99 == 0 })
}

// The processor time of a process that works rises.
func TestProcessorsInUse(t *testing.T) {
	hub, err := channels.New(channels.Options{})
	require.NoError(t, err)
	defer hub.Shutdown(context.Background())
	basetest.Eventually(t, "it takes processor time", func() bool {
		var all []channels.Replica
		for range 1000 { // work
			all, err = hub.Replicas(t.Context())
			require.NoError(t, err)
		}
		return all[0].CPU > 0
	})
}
