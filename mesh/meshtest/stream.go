package meshtest

import (
	"testing"
	"time"

	"github.com/channels-go/channels/mesh/internal/streamtest"
)

// startStream has a replica publish numbers on a channel.
func startStream(t *testing.T, from *member, channel string) *streamtest.Stream {
	return streamtest.Start(t, from, from.id, time.Millisecond, channel)
}

// watch subscribes a replica to a stream.
func watch(t *testing.T, to *member, s *streamtest.Stream) *streamtest.View {
	t.Helper()
	v := s.Watch(to.id)
	to.mu.Lock()
	to.views = append(to.views, v)
	to.mu.Unlock()
	to.subscribe(t, s.Channels...)
	v.Excuse("") // a subscription need not be active before Subscribe returns
	return v
}
