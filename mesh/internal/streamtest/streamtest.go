// Package streamtest shows what a mesh loses without a KindLost: a Stream publishes
// numbers through any faults, and a View knows which of them a replica may miss.
package streamtest

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

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
)

// A Stream publishes 1, 2, 3 … on its channels in turn, one in each pace. It does
// only a tenth of that once a test has waited for no number for long: the test
// then waits for a timeout, and would spend a processor on the numbers.
type Stream struct {
	Channels []string
	Stop     func() // and wait until nothing is published

	origin string
	begun  atomic.Int64 // the last number whose Publish was called
	lively atomic.Int64 // so many more in the full pace

	mu    sync.Mutex // guards the field below
	acked []int64    // the numbers for which Publish returned nil
}

// Start starts a Stream of the replica with the id origin, until the test ends.
func Start(t *testing.T, from mesh.Mesh, origin string, pace time.Duration, channels ...string) *Stream {
	s := &Stream{Channels: channels, origin: origin}
	s.hurry()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	s.Stop = func() { cancel(); running.Wait() }
	running.Go(func() { // ends with Stop
		for {
			pause := pace
			if s.lively.Add(-1) < 0 {
				pause *= 10
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			i := s.begun.Add(1)
			p := mesh.Packet{Channel: s.channelOf(i), Header: fmt.Sprint(i)}
			if from.Publish(context.Background(), p) == nil {
				s.mu.Lock()
				s.acked = append(s.acked, i)
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(s.Stop)
	return s
}

func (s *Stream) channelOf(i int64) string { return s.Channels[i%int64(len(s.Channels))] }

// More waits until the stream has published n more numbers.
func (s *Stream) More(t *testing.T, n int64) {
	t.Helper()
	goal := s.begun.Load() + n
	basetest.Eventually(t, "a publisher goes on", func() bool {
		s.hurry()
		return s.begun.Load() >= goal
	})
}

// hurry lets the next numbers come in the full pace.
func (s *Stream) hurry() { s.lively.Store(300) }

// A View is what a replica gets of a Stream. It may miss only what a KindLost
// reported.
type View struct {
	stream *Stream
	to     string

	mu     sync.Mutex         // guards the fields below
	excuse map[string]int64   // by channel: it may miss numbers up to this one; of all channels at ""
	got    map[string][]int64 // by channel
}

// Watch returns the View of the replica with the id to, which gives it all packets
// that it receives.
func (s *Stream) Watch(to string) *View {
	return &View{stream: s, to: to, excuse: map[string]int64{}, got: map[string][]int64{}}
}

// Excuse lets the replica miss what was published so far on a channel, or on all
// channels if it is "".
func (v *View) Excuse(channel string) {
	begun := v.stream.begun.Load()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.excuse[channel] = max(v.excuse[channel], begun)
}

// Take takes a packet that has arrived at the replica. It ignores what is not of
// its Stream.
func (v *View) Take(p mesh.Packet) {
	if p.Kind == mesh.KindLost {
		if p.Origin == "" || p.Origin == v.stream.origin {
			v.Excuse(p.Channel)
		}
		return
	}
	if p.Origin != v.stream.origin || !slices.Contains(v.stream.Channels, p.Channel) {
		return
	}
	i, _ := strconv.ParseInt(p.Header, 10, 64) // 0, which RequireAll refuses, if it is no number
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got[p.Channel] = append(v.got[p.Channel], i)
}

// excusedLocked is the last number on a channel that the replica may miss.
func (v *View) excusedLocked(channel string) int64 { return max(v.excuse[channel], v.excuse[""]) }

// AwaitLive waits until each channel has brought a number that was published from
// now on and that no KindLost excuses.
func (v *View) AwaitLive(t *testing.T) {
	t.Helper()
	from := v.stream.begun.Load()
	silent := func(channel string) bool {
		got := v.got[channel]
		return len(got) == 0 || got[len(got)-1] <= max(from, v.excusedLocked(channel))
	}
	what := fmt.Sprintf("%s gets again what %s publishes on %q", v.to, v.stream.origin, v.stream.Channels)
	basetest.Eventually(t, what, func() bool {
		v.stream.hurry()
		v.mu.Lock()
		defer v.mu.Unlock()
		return !slices.ContainsFunc(v.stream.Channels, silent)
	})
}

// missing returns a number that was acknowledged, is not excused and has not
// arrived, or 0.
func (v *View) missing() int64 {
	v.stream.mu.Lock()
	defer v.stream.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	arrived := map[int64]bool{}
	for _, got := range v.got {
		for _, i := range got {
			arrived[i] = true
		}
	}
	for _, i := range v.stream.acked {
		if i > v.excusedLocked(v.stream.channelOf(i)) && !arrived[i] {
			return i
		}
	}
	return 0
}

// RequireAll stops the stream. It checks that all numbers that are not excused
// have arrived, on each channel in order and once.
func (v *View) RequireAll(t *testing.T) {
	t.Helper()
	v.stream.Stop()
	for deadline := time.Now().Add(basetest.Patience); v.missing() != 0; time.Sleep(20 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "number %d of %d, from %s to %s, was lost without a KindLost",
			v.missing(), v.stream.begun.Load(), v.stream.origin, v.to)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for channel, got := range v.got {
		last := int64(0)
		for _, i := range got {
			if i <= last { // an assertion for each of many thousand would take seconds
				require.Greater(t, i, last, "%s got a number on %q twice or out of order", v.to, channel)
			}
			last = i
		}
	}
}
