package meshtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

// A stream publishes 1, 2, 3 … on one channel, about a thousand a second,
// through any faults.
type stream struct {
	from    *member
	channel string
	begun   atomic.Int64 // the last number whose Publish was called
	stop    func()       // and wait until nothing is published

	mu    sync.Mutex // guards the fields below
	acked []int64    // the numbers for which Publish returned nil
}

func startStream(t *testing.T, from *member, channel string) *stream {
	s := &stream{from: from, channel: channel}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	s.stop = func() { cancel(); running.Wait() }
	running.Go(func() { // ends with stop
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			i := s.begun.Add(1)
			if from.Publish(context.Background(), mesh.Packet{Channel: channel, Header: fmt.Sprint(i)}) == nil {
				s.mu.Lock()
				s.acked = append(s.acked, i)
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(s.stop)
	return s
}

// more waits until the stream has published n more numbers.
func (s *stream) more(t *testing.T, n int64) {
	t.Helper()
	goal := s.begun.Load() + n
	eventually(t, "a publisher goes on", func() bool { return s.begun.Load() >= goal })
}

func (s *stream) acknowledged() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acked)
}

// A view is what a replica gets of a stream. It may miss only what a KindLost
// reported.
type view struct {
	to     *member
	stream *stream

	mu     sync.Mutex // guards the fields below
	excuse int64      // it may miss numbers up to this one
	got    []int64
}

// watch subscribes a replica to a stream.
func watch(t *testing.T, to *member, s *stream) *view {
	t.Helper()
	v := &view{to: to, stream: s}
	to.mu.Lock()
	to.views = append(to.views, v)
	to.mu.Unlock()
	to.subscribe(t, s.channel)
	v.excused() // a subscription need not be active before Subscribe returns
	return v
}

// excused marks all numbers published so far as possibly lost.
func (v *view) excused() {
	begun := v.stream.begun.Load()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.excuse = max(v.excuse, begun)
}

// take is called for each packet that arrives at the replica.
func (v *view) take(p mesh.Packet) {
	switch {
	case p.Kind == mesh.KindLost:
		if (p.Channel == "" || p.Channel == v.stream.channel) && (p.Origin == "" || p.Origin == v.stream.from.id) {
			v.excused()
		}
	case p.Channel == v.stream.channel && p.Origin == v.stream.from.id && p.Header != ready:
		i, _ := strconv.ParseInt(p.Header, 10, 64)
		v.mu.Lock()
		v.got = append(v.got, i)
		v.mu.Unlock()
	}
}

// awaitLive waits until a number arrives that is published from now on and that
// no KindLost excuses.
func (v *view) awaitLive(t *testing.T) {
	t.Helper()
	from := v.stream.begun.Load()
	eventually(t, fmt.Sprintf("%s gets again what %s publishes on %q", v.to.id, v.stream.from.id, v.stream.channel), func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.got) > 0 && v.got[len(v.got)-1] > max(from, v.excuse)
	})
}

// missing returns a number that was acknowledged, is not excused and has not
// arrived, or 0.
func (v *view) missing() int64 {
	acked := v.stream.acknowledged()
	v.mu.Lock()
	defer v.mu.Unlock()
	got := make(map[int64]bool, len(v.got))
	for _, i := range v.got {
		got[i] = true
	}
	for _, i := range acked {
		if i > v.excuse && !got[i] {
			return i
		}
	}
	return 0
}

// requireAll stops the stream. It checks that all numbers that are not excused
// have arrived, in order and once.
func (v *view) requireAll(t *testing.T) {
	t.Helper()
	v.stream.stop()
	for deadline := time.Now().Add(patience); v.missing() != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			lost := v.missing()
			v.mu.Lock()
			defer v.mu.Unlock()
			require.FailNow(t, "a packet was lost without a KindLost", "%d of %d, from %s to %s; numbers up to %d are excused, %d have arrived",
				lost, v.stream.begun.Load(), v.stream.from.id, v.to.id, v.excuse, len(v.got))
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for k := 1; k < len(v.got); k++ {
		require.Greater(t, v.got[k], v.got[k-1], "%s got a number twice or out of order", v.to.id)
	}
}
