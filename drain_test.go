package channels_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// Load balancers learn of the end before it comes: with nobody connected, too.
func TestDrainDelayWithNobodyConnected(t *testing.T) {
	for name, c := range map[string]struct {
		delay, bound, want time.Duration
	}{
		"all of it":                  {5 * time.Second, time.Minute, 5 * time.Second},
		"half of what the ctx has":   {time.Minute, 10 * time.Second, 5 * time.Second},
		"none":                       {0, time.Minute, 0},
		"a ctx that has ended by it": {time.Minute, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := newHub(t, channels.Options{DrainDelay: c.delay})
				require.Equal(t, 200, get(hub, "/readyz").Code)
				ctx, cancel := context.WithTimeout(t.Context(), c.bound)
				defer cancel()
				begin := time.Now()
				drained := make(chan time.Duration)
				go func() {
					hub.Drain(ctx)
					drained <- time.Since(begin)
				}()
				synctest.Wait()
				require.Equal(t, 503, get(hub, "/readyz").Code, "at once")
				require.Equal(t, 200, get(hub, "/healthz").Code)
				publish(t, hub, "a", "x", "1")
				require.Equal(t, c.want, <-drained)
			})
		})
	}
}

// While /readyz says 503, everything else goes on. A second Drain, or Shutdown,
// ends the wait.
func TestDrainDelayServes(t *testing.T) {
	for _, ends := range []string{"a second Drain", "Shutdown"} {
		t.Run(ends, func(t *testing.T) {
			s := serve(t, channels.Options{DrainDelay: 10 * time.Minute})
			before := s.join("a", "")
			drained := background(func() error { return s.hub.Drain(context.Background()) })
			until(t, "not ready", func() bool { return s.get("/readyz").code() == "draining" })
			require.Equal(t, 200, s.get("/healthz").status)
			after := s.join("a", "")
			s.publish("a", "x", "1")
			for _, w := range []*wsClient{before, after} {
				w.want("x", "1")
			}
			require.Empty(t, drained, "it did not wait")
			if ends == "Shutdown" {
				require.NoError(t, s.hub.Shutdown(ctxT(t)))
			} else {
				require.NoError(t, s.hub.Drain(ctxT(t)))
				s.handshake("/channel/a/").wantFail(t, 503, "draining")
			}
			require.NoError(t, <-drained)
			for _, w := range []*wsClient{before, after} {
				w.wantClose(1001)
			}
		})
	}
}

// Who is told to come back at once meets the same replica again; and all who
// are told the same come in a heap.
func TestDrainTellsNobodyToComeBackAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		clients int
		time    time.Duration
	}{"one": {1, 0}, "some": {5, 0}, "within a millisecond": {2, time.Millisecond},
		"without a delay": {20, -1}, "within less than a millisecond": {20, time.Millisecond - 1}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{DrainTime: c.time})
			var ws []*wsClient
			for range c.clients {
				ws = append(ws, s.join("a", ""))
			}
			require.NoError(t, s.hub.Drain(ctxT(t)))
			seen := map[int64]bool{}
			for _, w := range ws {
				told, _ := w.wantClose(1001)
				require.Len(t, told, 1)
				require.Equal(t, "reconnect", told[0].Header)
				var b struct {
					After int64 `json:"after_ms"`
				}
				require.NoError(t, json.Unmarshal(told[0].Body, &b))
				require.Positive(t, b.After)
				require.LessOrEqual(t, b.After, int64(1000))
				seen[b.After] = true
			}
			if c.clients > 10 {
				require.Greater(t, len(seen), 5, "all come back in a heap")
			}
		})
	}
}

func TestDrainDelayLimits(t *testing.T) {
	for _, d := range []time.Duration{-1, 11 * time.Minute} {
		_, err := channels.New(channels.Options{DrainDelay: d})
		require.ErrorContains(t, err, "Options.DrainDelay is "+d.String()+"; it must be 0 to 10m0s")
	}
}
