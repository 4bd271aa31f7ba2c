package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// TestPromiseShutdownDrains has subscribers told, spread over time, and closed
// with 1001, while messages go on reaching those that are still there.
func TestPromiseShutdownDrains(t *testing.T) {
	s := serve(t, channels.Options{DrainTime: 4 * time.Second}) // 5 ms for each client
	const n = 200
	ws := make([]*wsClient, n)
	for i := range ws {
		ws[i] = s.join("c", "")
	}
	require.Equal(t, 200, s.get("/readyz").status)

	ctx := ctxT(t)
	drained := background(func() error { return s.hub.Drain(ctx) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	stop := repeatedly(func(int) {
		<-tick.C
		_, err := s.hub.Publish(ctx, "c", msg("while-draining", "1"))
		assert.NoError(t, err)
	})
	until(t, "new clients are refused", func() bool { return channels.Refusing(s.hub) })
	require.Equal(t, "draining", s.get("/readyz").code())
	require.Equal(t, 200, s.get("/healthz").status)
	refused := s.handshake("/channel/c/")
	refused.wantFail(t, 503, "draining")
	require.NotEmpty(t, refused.header.Get("Retry-After"))

	var mu sync.Mutex
	var afters []int
	heard := 0
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() {
			before, ce := w.wantClose(1001)
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, "draining", ce.Reason)
			told := false
			for _, m := range before {
				switch m.Header {
				case "reconnect":
					var b struct {
						After int `json:"after_ms"`
					}
					assert.NoError(t, json.Unmarshal(m.Body, &b))
					afters = append(afters, b.After)
					told = true
				case "while-draining":
					if told {
						heard++
					}
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, <-drained)
	stop()
	require.Zero(t, s.hub.Stats().Connections)
	require.Positive(t, heard, "nobody was left for the message")
	require.Len(t, afters, n, "each is told once")
	distinct := map[int]bool{}
	for _, a := range afters {
		require.GreaterOrEqual(t, a, 0)
		require.Less(t, a, 1000)
		distinct[a/100] = true
	}
	require.Greater(t, len(distinct), 8, "reconnects come in a heap: %v", afters)
}

// TestPromiseShutdownLosesNothingOfAHistory moves subscribers from a hub that
// drains to another on the same store, under load.
func TestPromiseShutdownLosesNothingOfAHistory(t *testing.T) {
	shared := newMemory(t)
	opts := channels.Options{Store: shared, Channel: history, DrainTime: 200 * time.Millisecond}
	old, next := serve(t, opts), serve(t, opts)

	var acked uint64
	hub := old.hub
	stop := repeatedly(func(n int) { // to the old one while it takes messages, then to the next
		res, err := hub.Publish(context.Background(), "c", msg("n", strconv.Itoa(n)))
		if errors.Is(err, channels.ErrClosed) {
			hub = next.hub
			return
		}
		if !assert.NoError(t, err) {
			return
		}
		acked = res.Position.Offset
		time.Sleep(100 * time.Microsecond) // a rate, not a synchronisation
	})
	const n = 20
	got := make([][]message, n)
	ended := make(chan struct{})
	var subs, moved sync.WaitGroup
	moved.Add(n)
	for i := range n {
		w := old.join("c", "")
		subs.Go(func() {
			for {
				m, err := w.read()
				if err != nil {
					break
				}
				if m.Header == "n" {
					got[i] = append(got[i], m)
				}
			}
			since := ""
			if len(got[i]) > 0 {
				since = got[i][len(got[i])-1].Since()
			}
			w = next.join("c", since)
			moved.Done()
			<-ended
			for len(got[i]) == 0 || got[i][len(got[i])-1].Offset < acked {
				got[i] = append(got[i], w.next())
			}
		})
	}
	until(t, "messages flow", func() bool { return old.hub.Stats().Published > 200 })
	require.NoError(t, old.hub.Drain(ctxT(t)))
	require.NoError(t, old.hub.Shutdown(ctxT(t)))
	moved.Wait()
	stop()
	close(ended)
	subs.Wait()
	for _, ms := range got {
		for i, m := range ms {
			require.Equal(t, ms[0].Offset+uint64(i), m.Offset)
			require.Equal(t, "n", m.Header)
		}
		require.Equal(t, acked, ms[len(ms)-1].Offset)
	}
}

func TestUseAfterShutdown(t *testing.T) {
	s := serve(t, channels.Options{Channel: history})
	sub := subscription(t, s.hub, "c", nil)
	publish(t, s.hub, "c", "m", "1")
	w := s.join("c", "")
	shut := background(func() error { return s.hub.Shutdown(ctxT(t)) })
	before, ce := w.wantClose(1001)
	require.NoError(t, <-shut)
	require.NoError(t, s.hub.Shutdown(ctxT(t)), "a second time")
	require.Equal(t, "closed", ce.Reason)
	require.Equal(t, "closed", before[len(before)-1].ErrorCode())
	var got []string
	for m, err := range sub.Messages() { // what was queued can still be read
		if err != nil {
			require.ErrorIs(t, err, channels.ErrClosed)
			got = append(got, "closed")
			continue
		}
		got = append(got, m.Header)
	}
	require.Equal(t, []string{"m", "closed"}, got)
	sub.Close()

	ctx := t.Context()
	_, err := s.hub.Publish(ctx, "c", msg("m", "1"))
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.Subscribe(ctx, "c", nil)
	require.ErrorIs(t, err, channels.ErrClosed)
	for method, err := range reads(t.Context(), s.hub, "c", "c", "c") {
		require.ErrorIs(t, err, channels.ErrClosed, method)
	}
	require.ErrorIs(t, s.hub.Drain(ctx), channels.ErrClosed)
	require.Zero(t, disconnect(s.hub, "x"))
}

func TestShutdownWhilePublishing(t *testing.T) {
	for range 20 {
		s := serve(t, channels.Options{QueueBytes: 256 << 20})
		w := s.join("c", "")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { untilClosed(t, s.hub, "c", 0) })
		}
		w.next()
		shut := background(func() error { return s.hub.Shutdown(ctxT(t)) })
		before, ce := w.wantClose(1001)
		require.NoError(t, <-shut)
		wg.Wait()
		// All that was acknowledged came before the close frame.
		require.Equal(t, "closed", ce.Reason)
		require.Equal(t, "closed", before[len(before)-1].ErrorCode())
		require.EqualValues(t, s.hub.Stats().Published, len(before))
	}
}

// TestShutdownWithAStalledClient ends within its context's time.
func TestShutdownWithAStalledClient(t *testing.T) {
	s := serveSmall(t, channels.Options{QueueBytes: 16 << 20})
	s.stall("c")
	s.publishLong("c", 10)
	require.ErrorIs(t, s.hub.Shutdown(within(t, 100*time.Millisecond)), context.DeadlineExceeded)
	require.Zero(t, s.hub.Stats().Connections)
	// The harness's Shutdown waits for the first and gets its error.
	s.Ended = true
}

func TestHubsAreIndependent(t *testing.T) {
	a, b := newHub(t, channels.Options{}), newHub(t, channels.Options{})
	subscription(t, a, "c", nil)
	require.Zero(t, publish(t, b, "c", "m", "1").Receivers)
}

// stuckWriter is a middleware's ResponseWriter whose writes block, whatever the deadline.
type stuckWriter struct {
	http.ResponseWriter
	holds chan struct{}
}

func (w stuckWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w stuckWriter) Write(b []byte) (int, error) {
	<-w.holds
	return w.ResponseWriter.Write(b)
}

// Shutdown returns soon after its context ends, whatever is stuck. A second Shutdown
// waits until that has ended. This package's leak check finds what is left.
func TestShutdownDoesNotWaitForWhatIsStuck(t *testing.T) {
	const limit = 10 * time.Second // for a starved machine; without a bound it would be for ever
	for _, c := range []struct {
		stuck string // a hook, or a method of the Store
		deaf  bool   // it does not mind its context either
		begin func(s *server)
	}{
		{"Tops", false, eightConnect}, {"Tops", true, eightConnect},
		{"Authorize", true, eightConnect}, {"OnConnect", true, eightConnect},
		{"OnSubscribe", true, eightConnect},
		{"Report", false, nil}, {"Report", true, nil},
		{"Forget", true, nil},
		{"OnDisconnect", true, func(s *server) { s.join("c", "").c.CloseNow() }},
		{"OnPublish", true, func(s *server) { s.join("c", "").send(`{"header":"x","body":1}`) }},
		{"OnPublish", true, func(s *server) { go s.hub.Publish(context.Background(), "c", msg("x", "1")) }},
		{"Write", true, func(s *server) {
			s.dialStream("c")
			until(s.t, "it is subscribed", func() bool { return s.hub.Stats().Connections == 1 })
		}},
	} {
		name := c.stuck
		if c.deaf {
			name += ", deaf"
		}
		t.Run(name, func(t *testing.T) {
			st := newStuckStore(t, c.stuck, c.deaf)
			hook := func(name string) error { return st.hang(context.Background(), name) }
			holds := make(chan struct{})
			s := serve(t, channels.Options{
				Store: st, StoreTimeout: time.Minute, Channel: history,
				Authorize:    func(context.Context, channels.Request) error { return hook("Authorize") },
				OnConnect:    func(context.Context, channels.Client) error { return hook("OnConnect") },
				OnSubscribe:  func(context.Context, channels.Client, string) { hook("OnSubscribe") },
				OnPublish:    func(context.Context, *channels.Publication) error { return hook("OnPublish") },
				OnDisconnect: func(channels.Client, error) { hook("OnDisconnect") },
			}, wrap(func(w http.ResponseWriter) http.ResponseWriter {
				if c.stuck == "Write" {
					return stuckWriter{w, holds}
				}
				return w
			}))
			if c.begin != nil {
				c.begin(s)
			}
			if c.stuck != "Write" && c.stuck != "Forget" {
				<-st.asked
			}
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err := s.hub.Shutdown(ctx)
			require.Less(t, time.Since(begin), limit)
			if c.deaf {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			st.release()
			close(holds)
			s.Ended = true
			if err := s.hub.Shutdown(ctxT(t)); err != nil { // the first one's
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			require.Zero(t, s.hub.Stats().Connections)
			require.Zero(t, s.hub.Stats().Queued)
		})
	}
}

// eightConnect has eight clients connect; some may be refused.
func eightConnect(s *server) {
	for range 8 {
		s.dialRaw().Send(upgradeRequest("/channel/c/"))
	}
}

// A Store that hangs does not delay the clients that Drain sends away, and a hook that
// blocks does not keep Drain beyond its context.
func TestDrainWhileTheStoreHangs(t *testing.T) {
	for _, stuck := range []string{"Report", "OnDisconnect"} {
		t.Run(stuck, func(t *testing.T) {
			st := newStuckStore(t, stuck, true)
			s := serve(t, channels.Options{Store: st, StoreTimeout: time.Minute,
				OnDisconnect: func(channels.Client, error) { st.hang(context.Background(), "OnDisconnect") }})
			w := s.join("c", "")
			if stuck == "Report" {
				<-st.asked
			}
			begin := time.Now()
			drained := background(func() error { return s.hub.Drain(context.Background()) })
			_, ce := w.wantClose(1001)
			require.Equal(t, "draining", ce.Reason)
			require.NoError(t, <-drained)
			require.Less(t, time.Since(begin), 30*time.Second)
			st.release()
		})
	}
}

// Drain returns when its context ends.
func TestDrainEndsWithItsContext(t *testing.T) {
	st := newStuckStore(t, "Authorize", true)
	s := serve(t, channels.Options{Authorize: func(context.Context, channels.Request) error { return st.hang(context.Background(), "Authorize") }})
	s.dialRaw().Send(upgradeRequest("/channel/c/"))
	<-st.asked
	ctx, cancel := context.WithCancel(context.Background())
	drained := background(func() error { return s.hub.Drain(ctx) })
	until(t, "it has begun", func() bool { return s.get("/readyz").status == 503 })
	require.Empty(t, drained, "it did not wait for who is being let in")
	cancel()
	require.ErrorIs(t, <-drained, context.Canceled)
	st.release()
}

// stallStream subscribes with a stream that is not read, and publishes more than the
// kernel holds for it, but less than its queue of 4 MiB.
func (s *server) stallStream() {
	s.t.Helper()
	s.dialStream("c")
	until(s.t, "subscribed", func() bool { n, _ := s.numbers("c"); return n == 1 })
	s.publishLong("c", 15)
}

// Shutdown returns when its context ends, even if a client does not read its stream.
func TestShutdownWithAStalledStream(t *testing.T) {
	s := serveSmall(t, channels.Options{WriteTimeout: 5 * time.Minute, QueueBytes: 4 << 20})
	s.Ended = true
	s.stallStream()
	require.ErrorIs(t, s.hub.Shutdown(within(t, 300*time.Millisecond)), context.DeadlineExceeded) // and it returns: the test would not, in 5 minutes
	require.Zero(t, s.hub.Stats().Connections)
}

// onlyFlushing hides SetWriteDeadline, as some middleware does.
type onlyFlushing struct {
	http.ResponseWriter
	http.Flusher
}

// If a writer takes no deadline, a write may block for ever. The hub does not wait for it.
func TestAStalledStreamWithoutDeadlines(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"forgotten after WriteTimeout": 200 * time.Millisecond, "Shutdown": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			left := make(departures, 1)
			s := serveSmall(t, channels.Options{WriteTimeout: timeout, QueueBytes: 4 << 20, OnDisconnect: left.hook},
				wrap(func(w http.ResponseWriter) http.ResponseWriter { return onlyFlushing{w, w.(http.Flusher)} }))
			s.Ended = true
			s.stallStream()
			if timeout < time.Minute {
				require.ErrorContains(t, <-left, "does not read")
				require.Zero(t, s.hub.Stats().Connections)
			}
			s.hub.Shutdown(within(t, 300*time.Millisecond)) // it returns: the test would not, in 5 minutes
			require.Zero(t, s.hub.Stats().Connections)
			s.http.CloseClientConnections() // the server's own goroutine is still in the write
		})
	}
}
