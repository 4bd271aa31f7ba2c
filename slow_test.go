package channels_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A flood is more than the small sockets and the queue of a client that does
// not read take on, by far.
const (
	floodMessages = 600
	floodPad      = 4 << 10
	floodQueue    = 128 << 10
)

type numbered struct {
	N   int
	Pad string
}

// TestPromiseASlowSubscriberHoldsNobodyUp publishes while one subscriber
// stalls. Another gets everything, and the stalled one what its channel's
// policy says.
func TestPromiseASlowSubscriberHoldsNobodyUp(t *testing.T) {
	for _, c := range []struct {
		name    string
		options channels.ChannelOptions
		closed  bool
	}{
		{"close", channels.ChannelOptions{}, true},
		{"close, with history", channels.ChannelOptions{HistorySize: floodMessages}, true},
		{"drop the oldest", channels.ChannelOptions{SlowSubscriber: channels.SlowDropOldest}, false},
		{"keep the latest", channels.ChannelOptions{SlowSubscriber: channels.SlowKeepLatest}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, channels.Options{
				QueueBytes: floodQueue, MaxMessageBytes: floodQueue / 4, WriteTimeout: time.Minute,
				Channel: func(string) channels.ChannelOptions { return c.options },
			})
			s.smallBuffers()
			s.http.Start()
			stalled, healthy := s.stall("c"), s.join("c", "")
			// The publisher goes no faster than the healthy one reads, which
			// keeps that one from being slow too.
			window := make(chan struct{}, 10)
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := range floodMessages {
					m, err := healthy.read()
					var b numbered
					if err != nil || json.Unmarshal(m.Body, &b) != nil || b.N != n {
						t.Errorf("message %d: %v, n %d", n, err, b.N)
						return
					}
					<-window
				}
			})
			pad := strings.Repeat("x", floodPad)
			for n := range floodMessages {
				window <- struct{}{}
				_, err := s.hub.Publish(t.Context(), "c", msg("m", fmt.Sprintf(`{"n":%d,"pad":%q}`, n, pad)))
				require.NoError(t, err)
			}
			wg.Wait()
			stats := s.hub.Stats()
			if c.closed {
				require.EqualValues(t, 1, stats.SlowClosed)
				require.Zero(t, stats.Dropped)
				wantClosedAsSlow(t, s, stalled, c.options.HistorySize > 0)
				return
			}
			require.Zero(t, stats.SlowClosed)
			require.Positive(t, stats.Dropped)
			// What it gets now is in order, with gaps, and ends with the newest.
			last, count := -1, 0
			for last < floodMessages-1 {
				m := stalled.next()
				var b numbered
				require.NoError(t, json.Unmarshal(m.Body, &b))
				require.Greater(t, b.N, last)
				last = b.N
				count++
			}
			require.EqualValues(t, floodMessages, int64(count)+stats.Dropped)
		})
	}
}

// wantClosedAsSlow reads what a stalled subscriber got: messages without a
// gap, the reason, and code 1013. With history, it then gets the rest.
func wantClosedAsSlow(t *testing.T, s *server, w *wsClient, resumes bool) {
	t.Helper()
	before, ce := w.wantClose(websocket.StatusTryAgainLater)
	require.Equal(t, "slow_subscriber", ce.Reason)
	require.NotEmpty(t, before)
	said := before[len(before)-1]
	require.Equal(t, "error", said.Header)
	require.Equal(t, "slow_subscriber", said.errorCode())
	got := before[:len(before)-1]
	require.Less(t, len(got), floodMessages)
	for n, m := range got {
		var b numbered
		require.NoError(t, json.Unmarshal(m.Body, &b))
		require.Equal(t, n, b.N)
	}
	if !resumes {
		return
	}
	w = s.join("c", got[len(got)-1].since())
	for n := len(got); n < floodMessages; n++ {
		var b numbered
		require.NoError(t, json.Unmarshal(w.next().Body, &b))
		require.Equal(t, n, b.N)
	}
}

// TestAnAnswerDoesNotEndWhoDropsMessages fills the queue up to less than an
// answer's length, and then has the client publish something that is refused.
func TestAnAnswerDoesNotEndWhoDropsMessages(t *testing.T) {
	for name, policy := range map[string]channels.SlowPolicy{"drop the oldest": channels.SlowDropOldest, "keep the latest": channels.SlowKeepLatest} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, channels.Options{
				QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, WriteTimeout: time.Minute,
				Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{SlowSubscriber: policy} },
			})
			s.smallBuffers()
			s.http.Start()
			c := s.hostile(1, "c")[0]
			until(t, "its socket is full", func() bool { // since nothing but what the queue holds is not dropped
				before := s.hub.Stats().Dropped
				for range 200 {
					s.publishGo("c", `"`+long(8<<10)+`"`)
				}
				return s.hub.Stats().Dropped-before >= 190
			})
			cycle := func() (n int) { // how many short messages fit between two drops
				for before := s.hub.Stats().Dropped; s.hub.Stats().Dropped == before; n++ {
					s.publishGo("c", "1")
				}
				return n
			}
			cycle()
			for range cycle() - 1 {
				s.publishGo("c", "2")
			}
			sub := subscribe(t, s.hub, "c", nil)
			c.write(wsFrame(rawText, `{"header":"error","body":1}`) + text("3"))
			sub.wait(t, 1) // both are handled
			require.Zero(t, s.hub.Stats().SlowClosed)
			var got []string
			for len(got) < 3 { // the answer, the newest message, and the answer to that
				switch m := c.message(); {
				case m.Header != "m":
					got = append(got, m.Header)
				case string(m.Body) == "3":
					got = append(got, "3")
				}
			}
			require.Equal(t, []string{"error", "3", "exchange"}, got)
			sub.close()
		})
	}
}

func TestASubscriberThatNeverReadsIsCut(t *testing.T) {
	gone := make(chan error, 1)
	s := newServer(t, channels.Options{
		WriteTimeout: 200 * time.Millisecond,
		OnDisconnect: func(_ channels.Client, reason error) { gone <- reason },
	})
	s.smallBuffers()
	s.http.Start()
	s.stall("c")
	body := `"` + strings.Repeat("x", 200<<10) + `"`
	for range 50 {
		_, err := s.hub.Publish(t.Context(), "c", msg("m", body))
		require.NoError(t, err)
	}
	reason := <-gone // whichever is first: the queue is full, or the write takes too long
	require.True(t, errors.Is(reason, channels.ErrSlowSubscriber) || errors.Is(reason, os.ErrDeadlineExceeded), "%v", reason)
}

func TestAGoSubscriberThatIsSlow(t *testing.T) {
	for _, c := range []struct {
		name    string
		options channels.ChannelOptions
	}{
		{"close", channels.ChannelOptions{}},
		{"drop the oldest", channels.ChannelOptions{SlowSubscriber: channels.SlowDropOldest}},
		{"keep the latest", channels.ChannelOptions{SlowSubscriber: channels.SlowKeepLatest}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := newHub(t, channels.Options{QueueBytes: 64 << 10, MaxMessageBytes: 1 << 10,
				Channel: func(string) channels.ChannelOptions { return c.options }})
			sub, err := hub.Subscribe(t.Context(), "c", nil)
			require.NoError(t, err)
			defer sub.Close()
			const n = 5000
			for i := range n {
				_, err := hub.Publish(t.Context(), "c", msg("m", fmt.Sprint(i)))
				require.NoError(t, err)
			}
			last, count := -1, 0
			for m, err := range sub.Messages() {
				if c.options.SlowSubscriber == channels.SlowClose {
					require.ErrorIs(t, err, channels.ErrSlowSubscriber)
					last = n - 1 // what waited was dropped
					break
				}
				require.NoError(t, err)
				var i int
				require.NoError(t, json.Unmarshal(m.Body, &i))
				require.Greater(t, i, last)
				last = i
				if count++; last == n-1 {
					break
				}
			}
			require.Equal(t, n-1, last)
			switch c.options.SlowSubscriber {
			case channels.SlowDropOldest:
				require.Greater(t, count, 300) // three quarters of the queue at least
				fallthrough
			case channels.SlowKeepLatest:
				require.EqualValues(t, n, int64(count)+hub.Stats().Dropped)
			}
		})
	}
}
