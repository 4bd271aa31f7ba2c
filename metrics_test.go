package channels_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestStatsCountWhatIsDelivered(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{})
	c := s.For(t).DialMany(3, "room")
	before := s.Hub.Stats()
	require.EqualValues(t, 3, before.Requests)
	s.PublishGo("room", `"hello"`)
	s.PublishGo("empty", `"hello"`)
	for _, one := range c {
		require.Equal(t, `"hello"`, string(one.Message().Body))
	}
	after := s.Hub.Stats()
	require.EqualValues(t, 2, after.Published)
	require.EqualValues(t, 3, after.Delivered-before.Delivered)
	frame := int64(2 + len(hubtest.Say(`"hello"`)))
	until(t, "all bytes are counted", func() bool { return s.Hub.Stats().Written-before.Written >= 3*frame })
	require.LessOrEqual(t, s.Hub.Stats().Written-before.Written, 3*(frame+2), "each may have been pinged")
}

func TestMetricsTellDoorsAndOutcomesApart(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "history") {
			return channels.ChannelOptions{HistorySize: 10}
		}
		return channels.ChannelOptions{}
	}})
	ctx := context.Background()
	key := channels.PublishOptions{Key: "k"}
	for range 2 {
		_, err := s.Hub.PublishWith(ctx, "history", hubtest.Msg("m", `1`), key)
		require.NoError(t, err)
	}
	_, err := s.Hub.PublishWith(ctx, "history", hubtest.Msg("m", `2`), key)
	require.ErrorIs(t, err, channels.ErrKeyReused)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Hub.Publish(gone, "room", hubtest.Msg("m", `1`))
	require.ErrorIs(t, err, context.Canceled)
	m := s.Hub.Metrics()
	require.Zero(t, m.Store["append"].Errors, "a key that is used again is the publisher's error")
	require.Equal(t, map[string]int64{"ok": 1, "duplicate": 1, "key_reused": 1, "cancelled": 1}, m.Doors["go"].Publishes)

	resp := hubtest.Request(t, ctx, s.HTTP.Client(), http.MethodPost, s.HTTP.URL+"/v1/channel/room/publish", `{"header":"m"`)
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	hubtest.Body(t, resp)
	c := s.For(t).DialMany(1, "room")[0]
	c.Send(hubtest.WSFrame(0x81, hubtest.Say(`1`)))
	require.Equal(t, "1", string(c.Message().Body))
	require.Equal(t, "exchange", c.Message().Header)
	m = s.Hub.Metrics()
	require.Equal(t, map[string]int64{"ok": 0, "duplicate": 0, "bad_json": 1}, m.Doors["http"].Publishes)
	require.Equal(t, map[string]int64{"bad_json": 1}, m.RequestsRefused)
	require.Equal(t, channels.DoorMetrics{Connections: 1, Connects: 1, Publishes: map[string]int64{"ok": 1, "duplicate": 0}}, m.Doors["websocket"])
	require.Equal(t, 1, m.Subscriptions)
	c.Close()
	until(t, "the connection is gone", func() bool {
		m = s.Hub.Metrics()
		return m.Doors["websocket"].Connections == 0 && m.Subscriptions == 0
	})
	require.EqualValues(t, 1, m.Doors["websocket"].Connects)
}

func TestLatencyIsSampled(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{})
	c := s.For(t).DialMany(2, "room")
	until(t, "a message is sampled", func() bool {
		s.PublishGo("room", `1`)
		for _, one := range c {
			one.Message()
		}
		return s.Hub.Metrics().Latency.Count() > 0
	})
	require.Positive(t, s.Hub.Metrics().Latency.Quantile(1))
}

func TestOnlySomeCallsOfAMemoryAreTimed(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 1})})
	for range 100 {
		_, err := hub.Publish(t.Context(), "c", msg("m", `1`))
		require.NoError(t, err)
	}
	until(t, "one call in 16 is timed", func() bool { // a canary may come between the two numbers
		c := hub.Metrics().Store["append"]
		return c.Calls >= 100 && int64(c.Time.Count()) == (c.Calls+15)/16
	})
}

// What an app's errors are called may be anything.
func TestCodesOfErrorsAreBounded(t *testing.T) {
	n := 0
	hub := newHub(t, channels.Options{OnPublish: func(context.Context, *channels.Publication) error {
		n++
		return &channels.Error{Code: fmt.Sprint("code", n)}
	}})
	for range 100 {
		_, err := hub.Publish(t.Context(), "c", msg("m", `1`))
		require.Error(t, err)
	}
	outcomes := hub.Metrics().Doors["go"].Publishes
	require.Len(t, outcomes, 64+3) // ok, duplicate and other
	require.EqualValues(t, 100-64, outcomes["other"])
}

// They can be labels, which have to be UTF-8.
func TestCodesOfErrorsAreLabels(t *testing.T) {
	hub := newHub(t, channels.Options{OnPublish: func(_ context.Context, p *channels.Publication) error {
		return &channels.Error{Code: p.Message.Header + "\xff"}
	}})
	for _, code := range []string{"a", strings.Repeat("ä", 500)} {
		_, err := hub.Publish(t.Context(), "c", msg(code, `1`))
		require.Error(t, err)
	}
	outcomes := hub.Metrics().Doors["go"].Publishes
	require.EqualValues(t, 1, outcomes["a?"])
	require.EqualValues(t, 1, outcomes[strings.Repeat("ä", 32)])
}

func TestQuantilesOfAHistogram(t *testing.T) {
	h := channels.Histogram{Bounds: []time.Duration{10, 20}, Counts: []uint64{10, 10, 0}, Sum: 300}
	require.EqualValues(t, 20, h.Count())
	for q, want := range map[float64]time.Duration{0: 0, 0.25: 5, 0.5: 10, 0.75: 15, 1: 20} {
		require.Equal(t, want, h.Quantile(q), "%v", q)
	}
	later := channels.Histogram{Bounds: h.Bounds, Counts: []uint64{10, 10, 1}, Sum: 400}
	d := later.Since(h)
	require.Equal(t, channels.Histogram{Bounds: h.Bounds, Counts: []uint64{0, 0, 1}, Sum: 100}, d)
	require.EqualValues(t, 20, d.Quantile(0.5), "all took longer than the last bound")
	require.Zero(t, channels.Histogram{}.Quantile(0.5))
	require.Zero(t, h.Since(h).Quantile(0.99))
}

func TestWatchedChannelsAreCounted(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{MaxChannels: 2})
	c := s.For(t).DialMany(1, "chat.old")[0]
	require.Empty(t, s.Hub.Metrics().Watched)
	require.NoError(t, s.Hub.WatchChannels("chat.*", "*.new", "chat.*"))
	want := func(chat, fresh channels.ChannelMetrics) {
		t.Helper()
		require.Equal(t, map[string]channels.ChannelMetrics{"chat.*": chat, "*.new": fresh}, s.Hub.Metrics().Watched)
	}
	want(channels.ChannelMetrics{Channels: 1, Subscriptions: 1}, channels.ChannelMetrics{})
	s.PublishGo("chat.old", `1`)
	s.PublishGo("chat.new", `1`)
	want(channels.ChannelMetrics{Channels: 2, Subscriptions: 1, Published: 2, Delivered: 1}, channels.ChannelMetrics{Channels: 1, Published: 1})
	s.PublishGo("other", `1`) // for which chat.new makes way
	want(channels.ChannelMetrics{Channels: 1, Subscriptions: 1, Published: 2, Delivered: 1}, channels.ChannelMetrics{Published: 1})
	c.Close()
	until(t, "the subscription has ended", func() bool { return s.Hub.Metrics().Watched["chat.*"].Subscriptions == 0 })

	require.ErrorIs(t, s.Hub.WatchChannels("more", "["), channels.ErrBadChannel)
	for i := range channels.MaxWatched - 2 {
		require.NoError(t, s.Hub.WatchChannels(strings.Repeat("a", i+1)))
	}
	require.ErrorIs(t, s.Hub.WatchChannels("more"), channels.ErrTooLarge)
	require.NoError(t, s.Hub.WatchChannels("chat.*"), "it is watched already")
}
