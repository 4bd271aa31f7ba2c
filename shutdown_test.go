package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// newHub starts a hub without a server. It ends with the test.
func newHub(t *testing.T, o channels.Options) *channels.Hub {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet
	}
	hub, err := channels.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return hub
}

// TestPromiseShutdownDrains has subscribers told, spread over time, and closed
// with 1001, while messages go on reaching those that are still there.
func TestPromiseShutdownDrains(t *testing.T) {
	s := serve(t, channels.Options{DrainTime: 4 * time.Second}) // 5 ms for each client
	const n = 200
	ws := make([]*wsClient, n)
	for i := range ws {
		ws[i] = s.join("c", "")
	}
	require.Equal(t, 200, s.do("GET", "/readyz", "").status)

	drained := make(chan error, 1)
	ctx := ctxT(t)
	go func() { drained <- s.hub.Drain(ctx) }()
	var publisher sync.WaitGroup
	stop := make(chan struct{})
	publisher.Go(func() { // all the time
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			if _, err := s.hub.Publish(ctx, "c", msg("while-draining", "1")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	until(t, "not ready", func() bool { return s.do("GET", "/readyz", "").status == 503 })
	require.Equal(t, "draining", s.do("GET", "/readyz", "").code())
	require.Equal(t, 200, s.do("GET", "/healthz", "").status)
	_, resp, err := s.tryDial("/channel/c/", nil)
	require.Error(t, err)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))

	var mu sync.Mutex
	var afters []int
	heard := 0
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() {
			before, ce := w.wantClose(1001)
			mu.Lock()
			defer mu.Unlock()
			if ce.Reason != "draining" {
				t.Errorf("reason %q", ce.Reason)
			}
			told := false
			for _, m := range before {
				switch m.Header {
				case "reconnect":
					var b struct {
						After int `json:"after_ms"`
					}
					if err := json.Unmarshal(m.Body, &b); err != nil {
						t.Error(err)
					}
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
	close(stop)
	publisher.Wait()
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
	shared, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { shared.Close() })
	opts := channels.Options{Store: shared, Channel: history, DrainTime: 200 * time.Millisecond}
	old, next := serve(t, opts), serve(t, opts)

	stop := make(chan struct{})
	var acked uint64
	var publisher sync.WaitGroup
	publisher.Go(func() { // to the old one while it takes messages, then to the next
		hub := old.hub
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			res, err := hub.Publish(context.Background(), "c", msg("n", strconv.Itoa(n)))
			if errors.Is(err, channels.ErrClosed) {
				hub = next.hub
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			acked = res.Position.Offset
			time.Sleep(100 * time.Microsecond) // a rate, not a synchronisation
		}
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
				since = got[i][len(got[i])-1].since()
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
	close(stop)
	publisher.Wait()
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
	sub, err := s.hub.Subscribe(t.Context(), "c", nil)
	require.NoError(t, err)
	_, err = s.hub.Publish(t.Context(), "c", msg("m", "1"))
	require.NoError(t, err)
	w := s.join("c", "")
	shut := make(chan error, 1)
	go func() { shut <- s.hub.Shutdown(ctxT(t)) }()
	before, ce := w.wantClose(1001)
	require.NoError(t, <-shut)
	require.NoError(t, s.hub.Shutdown(ctxT(t)), "a second time")
	require.Equal(t, "closed", ce.Reason)
	require.Equal(t, "closed", before[len(before)-1].errorCode())
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
	_, err = s.hub.Publish(ctx, "c", msg("m", "1"))
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.Subscribe(ctx, "c", nil)
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.Channels(ctx, channels.ChannelsQuery{})
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.Channel(ctx, "c")
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.History(ctx, "c", channels.HistoryQuery{})
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = s.hub.Presence(ctx, "c", 0)
	require.ErrorIs(t, err, channels.ErrClosed)
	require.ErrorIs(t, s.hub.Drain(ctx), channels.ErrClosed)
	require.Zero(t, disconnect(s.hub, "x"))
	for _, path := range []string{"/v1/channel", "/v1/channel/c", "/v1/channel/c/history", "/v1/channel/c/presence", "/v1/nodes", "/readyz"} {
		a := s.do("GET", path, "")
		require.Equal(t, 503, a.status, path)
		require.Equal(t, "closed", a.code(), path)
	}
	require.Equal(t, "closed", s.do("POST", "/v1/channel/c/publish", `{"header":"x","body":1}`).code())
	_, resp, err := s.tryDial("/channel/c/", nil)
	require.Error(t, err)
	require.Equal(t, 503, resp.StatusCode)
}

func TestShutdownWhilePublishing(t *testing.T) {
	for range 20 {
		s := serve(t, channels.Options{QueueBytes: 256 << 20})
		w := s.join("c", "")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					_, err := s.hub.Publish(context.Background(), "c", msg("m", "1"))
					if errors.Is(err, channels.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		w.next()
		shut := make(chan error, 1)
		go func() { shut <- s.hub.Shutdown(ctxT(t)) }()
		before, ce := w.wantClose(1001)
		require.NoError(t, <-shut)
		wg.Wait()
		// All that was acknowledged came before the close frame.
		require.Equal(t, "closed", ce.Reason)
		require.Equal(t, "closed", before[len(before)-1].errorCode())
		require.EqualValues(t, s.hub.Stats().Published, len(before))
	}
}

// TestShutdownWithAStalledClient ends within its context's time.
func TestShutdownWithAStalledClient(t *testing.T) {
	s := newServer(t, channels.Options{QueueBytes: 16 << 20})
	s.SmallBuffers()
	s.http.Start()
	s.stall("c")
	big := `"` + strings.Repeat("x", 200<<10) + `"`
	for range 10 {
		_, err := s.hub.Publish(t.Context(), "c", msg("m", big))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.hub.Shutdown(ctx), context.DeadlineExceeded)
	require.Zero(t, s.hub.Stats().Connections)
	// The harness's Shutdown waits for the first and gets its error.
	s.Ended = true
}

func TestHubsAreIndependent(t *testing.T) {
	a, b := newHub(t, channels.Options{}), newHub(t, channels.Options{})
	sub, err := a.Subscribe(t.Context(), "c", nil)
	require.NoError(t, err)
	defer sub.Close()
	res, err := b.Publish(t.Context(), "c", msg("m", "1"))
	require.NoError(t, err)
	require.Zero(t, res.Receivers)
}
