package channels_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

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
			s.dialRaw().write("GET /channel/c/ HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
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
		c := s.dialRaw()
		c.write(upgradeRequest("/channel/c/"))
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
			drained := make(chan error, 1)
			go func() { drained <- s.hub.Drain(context.Background()) }()
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
	s.dialRaw().write(upgradeRequest("/channel/c/"))
	<-st.asked
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- s.hub.Drain(ctx) }()
	until(t, "it has begun", func() bool { return s.do("GET", "/readyz", "").status == 503 })
	select {
	case err := <-drained:
		t.Fatalf("it did not wait for who is being let in: %v", err)
	default:
	}
	cancel()
	require.True(t, errors.Is(<-drained, context.Canceled))
	st.release()
}

// Shutdown returns when its context ends, even if a client does not read its stream.
func TestShutdownWithAStalledStream(t *testing.T) {
	s := newServer(t, channels.Options{WriteTimeout: 5 * time.Minute, QueueBytes: 4 << 20})
	s.Ended = true
	s.SmallBuffers()
	s.http.Start()
	s.dialRaw().write(streamRequest("/channel/c/"))
	until(t, "subscribed", func() bool { n, _ := s.numbers("c"); return n == 1 })
	for range 15 { // more than the kernel holds, less than the queue
		_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat("x", 200<<10)+`"`))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.hub.Shutdown(ctx), context.DeadlineExceeded) // and it returns: the test would not, in 5 minutes
	require.Zero(t, s.hub.Stats().Connections)
}

// onlyFlushing hides SetWriteDeadline, as some middleware does.
type onlyFlushing struct{ w http.ResponseWriter }

func (o onlyFlushing) Header() http.Header { return o.w.Header() }

func (o onlyFlushing) Write(b []byte) (int, error) { return o.w.Write(b) }

func (o onlyFlushing) WriteHeader(s int) { o.w.WriteHeader(s) }

func (o onlyFlushing) Flush() { o.w.(http.Flusher).Flush() }

// If a writer takes no deadline, a write may block for ever. The hub does not wait for it.
func TestAStalledStreamWithoutDeadlines(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"forgotten after WriteTimeout": 200 * time.Millisecond, "Shutdown": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			left := make(chan error, 1)
			s := newServer(t, channels.Options{WriteTimeout: timeout, QueueBytes: 4 << 20,
				OnDisconnect: func(_ channels.Client, reason error) { left <- reason }},
				wrap(func(w http.ResponseWriter) http.ResponseWriter { return onlyFlushing{w} }))
			s.Ended = true
			s.SmallBuffers()
			s.http.Start()
			s.dialRaw().write(streamRequest("/channel/c/"))
			until(t, "subscribed", func() bool { n, _ := s.numbers("c"); return n == 1 })
			for range 15 { // more than the kernel holds, less than the queue
				_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat("x", 200<<10)+`"`))
				require.NoError(t, err)
			}
			if timeout < time.Minute {
				require.ErrorContains(t, <-left, "does not read")
				require.Zero(t, s.hub.Stats().Connections)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			s.hub.Shutdown(ctx) // it returns: the test would not, in 5 minutes
			require.Zero(t, s.hub.Stats().Connections)
			s.http.CloseClientConnections() // the server's own goroutine is still in the write
		})
	}
}
