package channels_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A flood is more than the small sockets and the queue of a client that does
// not read take on, by far.
const (
	floodMessages = 300
	floodPad      = 4 << 10
	floodQueue    = 128 << 10
)

// numberOf is the number in the body of a flood's message. The race detector takes
// seconds to parse them all as JSON.
func numberOf(t *testing.T, m message) int {
	t.Helper()
	digits, _, _ := bytes.Cut(bytes.TrimPrefix(m.Body, []byte(`{"n":`)), []byte(","))
	n, err := strconv.Atoi(string(digits))
	assert.NoError(t, err)
	return n
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
			s := serveSmall(t, channels.Options{
				QueueBytes: floodQueue, MaxMessageBytes: floodQueue / 4, WriteTimeout: time.Minute,
				Channel: every(c.options),
			})
			stalled, healthy := s.stall("c"), s.join("c", "")
			// The publisher goes no faster than the healthy one reads, which
			// keeps that one from being slow too.
			window := make(chan struct{}, 10)
			var wg sync.WaitGroup
			wg.Go(func() {
				for n := range floodMessages {
					m, err := healthy.read()
					if err != nil || numberOf(t, m) != n {
						t.Errorf("message %d: %v, %.30s", n, err, m.Body)
						return
					}
					<-window
				}
			})
			pad := strings.Repeat("x", floodPad)
			for n := range floodMessages {
				window <- struct{}{}
				publish(t, s.hub, "c", "m", fmt.Sprintf(`{"n":%d,"pad":%q}`, n, pad))
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
				n := numberOf(t, stalled.next())
				require.Greater(t, n, last)
				last = n
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
	require.Equal(t, "slow_subscriber", said.ErrorCode())
	got := before[:len(before)-1]
	require.Less(t, len(got), floodMessages)
	for n, m := range got {
		require.Equal(t, n, numberOf(t, m))
	}
	if !resumes {
		return
	}
	w = s.join("c", got[len(got)-1].Since())
	for n := len(got); n < floodMessages; n++ {
		require.Equal(t, n, numberOf(t, w.next()))
	}
}

// TestAnAnswerDoesNotEndWhoDropsMessages fills the queue up to less than an
// answer's length, and then has the client publish something that is refused.
func TestAnAnswerDoesNotEndWhoDropsMessages(t *testing.T) {
	for name, policy := range map[string]channels.SlowPolicy{"drop the oldest": channels.SlowDropOldest, "keep the latest": channels.SlowKeepLatest} {
		t.Run(name, func(t *testing.T) {
			s := serveSmall(t, channels.Options{
				QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, WriteTimeout: time.Minute,
				Channel: every(channels.ChannelOptions{SlowSubscriber: policy}),
			})
			c := s.upgrade("/channel/c/")
			until(t, "its socket is full", func() bool { // since nothing but what the queue holds is not dropped
				before := s.hub.Stats().Dropped
				for range 200 {
					s.PublishGo("c", `"`+long(8<<10)+`"`)
				}
				return s.hub.Stats().Dropped-before >= 190
			})
			cycle := func() (n int) { // how many short messages fit between two drops
				for before := s.hub.Stats().Dropped; s.hub.Stats().Dropped == before; n++ {
					s.PublishGo("c", "1")
				}
				return n
			}
			cycle()
			for range cycle() - 1 {
				s.PublishGo("c", "2")
			}
			sub := subscribe(t, s.hub, "c", nil)
			c.Send(wsFrame(rawText, `{"header":"error","body":1}`) + wsFrame(rawText, say("3")))
			sub.wait(t, 1) // both are handled
			require.Zero(t, s.hub.Stats().SlowClosed)
			var got []string
			for len(got) < 3 { // the answer, the newest message, and the answer to that
				switch m := c.Message(); {
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
	gone := make(departures, 1)
	s := serveSmall(t, channels.Options{WriteTimeout: 200 * time.Millisecond, OnDisconnect: gone.hook})
	s.stall("c")
	s.publishLong("c", 50)
	reason := <-gone // whichever is first: the queue is full, or the write takes too long
	require.True(t, errors.Is(reason, channels.ErrSlowSubscriber) || errors.Is(reason, os.ErrDeadlineExceeded), "%v", reason)
}

func TestAGoSubscriberThatIsSlow(t *testing.T) {
	for name, policy := range map[string]channels.SlowPolicy{
		"close": channels.SlowClose, "drop the oldest": channels.SlowDropOldest, "keep the latest": channels.SlowKeepLatest,
	} {
		t.Run(name, func(t *testing.T) {
			hub := newHub(t, channels.Options{QueueBytes: 64 << 10, MaxMessageBytes: 1 << 10,
				Channel: every(channels.ChannelOptions{SlowSubscriber: policy})})
			sub := subscription(t, hub, "c", nil)
			const n = 5000
			for i := range n {
				publish(t, hub, "c", "m", fmt.Sprint(i))
			}
			last, count := -1, 0
			for m, err := range sub.Messages() {
				if policy == channels.SlowClose {
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
			switch policy {
			case channels.SlowDropOldest:
				require.Greater(t, count, 300) // three quarters of the queue at least
				fallthrough
			case channels.SlowKeepLatest:
				require.EqualValues(t, n, int64(count)+hub.Stats().Dropped)
			}
		})
	}
}

// What is no message pushes out no channel's newest message: presence events do
// not, answers do not, and pongs take no room.
func TestTheNewestMessageStays(t *testing.T) {
	for name, c := range map[string]struct {
		policy channels.SlowPolicy
		event  int // bytes
	}{
		"drop the oldest":                    {channels.SlowDropOldest, 7 << 10},
		"keep the latest":                    {channels.SlowKeepLatest, 7 << 10},
		"drop the oldest, events do not fit": {channels.SlowDropOldest, 36 << 10},
		"keep the latest, events do not fit": {channels.SlowKeepLatest, 36 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			info := json.RawMessage(`"` + long(c.event) + `"`)
			options := every(channels.ChannelOptions{SlowSubscriber: c.policy, Presence: channels.PresenceEvents})
			s := serve(t, channels.Options{QueueBytes: 64 << 10, MaxMessageBytes: 32 << 10, Channel: options},
				whoIs(func(*http.Request) channels.Identity { return channels.Identity{ID: "ann", Info: info} }))
			sub := subscription(t, s.hub, "c", nil)
			for n := range 3 {
				publish(t, s.hub, "c", "m", fmt.Sprintf(`"%d%s"`, n, long(30<<10)))
			}
			for range 20 { // each join and each leave is an event of so many bytes
				s.join("c", "").c.CloseNow()
			}
			until(t, "all have left", func() bool { return s.hub.Stats().Connections == 1 })
			require.Zero(t, s.hub.Stats().SlowClosed)
			until(t, "no more waits than may", func() bool { // a connection that has left may still have an event
				return s.hub.Stats().Queued <= 64<<10
			})
			disconnect(s.hub, sub.ID()) // which is said after what waits
			var got []string
			for m, err := range sub.Messages() {
				if err != nil {
					require.ErrorIs(t, err, channels.ErrDisconnected)
					continue
				}
				got = append(got, m.Header)
				if m.Header == "m" {
					got[len(got)-1] += string(m.Body[1:2])
				}
			}
			require.Contains(t, got, "m2")
			if c.event < 32<<10 {
				require.Contains(t, got, "presence")
			}
		})
	}
}

// A stream of events that is closed as slow before anything was written to it
// says where it began, so that the browser misses nothing.
func TestASlowStreamSaysWhereItBegan(t *testing.T) {
	var hub *channels.Hub
	s := serve(t, channels.Options{QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, Channel: history,
		OnSubscribe: func(ctx context.Context, _ channels.Client, channel string) {
			if hub.Stats().SlowClosed > 0 {
				return // the second time
			}
			for n := range 10 {
				hub.Publish(ctx, channel, msg("m", fmt.Sprintf(`"%d%s"`, n, long(12<<10))))
			}
		}})
	hub = s.hub
	s.publish("c", "before", "1")
	e := s.stream("c", "")
	place, err := e.read()
	require.NoError(t, err)
	require.Empty(t, place.data)
	require.NotEmpty(t, place.id)
	require.Equal(t, "slow_subscriber", e.next().message().ErrorCode())
	e.close()
	e = s.stream("c", "", "Last-Event-ID", place.id)
	for n := range 10 {
		require.Equal(t, fmt.Sprint(n), string(e.next().message().Body[1:2]))
	}
}
