package metrics_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/metrics"
	"github.com/channels-go/channels/store"
)

// A move is something that happens, and the series that it changes.
type move struct {
	series string
	do     func(t *testing.T)
}

// makeMoves makes the moves in order, and waits until each has changed its series. moved
// gets the names of the metrics, and seen what the last scrape has.
func makeMoves(t *testing.T, reg prometheus.Gatherer, moves []move, moved map[string]bool) (seen scraped) {
	for _, m := range moves {
		before, was := scrape(t, reg).values[m.series]
		if m.do != nil {
			m.do(t)
		} else {
			before, was = 0, false
		}
		eventually(t, m.series+" changes", func() bool {
			seen = scrape(t, reg)
			now, is := seen.values[m.series]
			return is && (now != before || !was)
		})
		name, _, _ := strings.Cut(m.series, "{")
		moved[name] = true
	}
	return seen
}

// Every metric moves when what it counts happens, and docs/metrics.md lists what a
// scrape shows.
func TestEveryMetricMoves(t *testing.T) {
	moved := map[string]bool{}
	var outside, inside scraped
	t.Run("by doors", func(t *testing.T) { outside = byDoors(t, moved) })
	t.Run("in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { inside = inTime(t, moved) })
	})
	require.Equal(t, names(t), slices.Sorted(maps.Keys(moved)))

	t.Run("the table in docs/metrics.md", func(t *testing.T) {
		b, err := os.ReadFile("../docs/metrics.md")
		require.NoError(t, err)
		var rows []string
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "| `channels_") {
				rows = append(rows, strings.TrimSpace(line))
			}
		}
		slices.Sort(rows)
		var want []string
		for _, name := range names(t) {
			from := outside
			if from.types[name] == "" {
				from = inside
			}
			want = append(want, "| `"+name+"` | "+from.types[name]+" | "+strings.Join(from.labels[name], ", ")+" | "+from.helps[name]+" |")
		}
		slices.Sort(want)
		require.Equal(t, strings.Join(want, "\n"), strings.Join(rows, "\n"))
	})
}

// byDoors needs a network.
func byDoors(t *testing.T, moved map[string]bool) scraped {
	s := hubtest.Serve(t, channels.Options{CompressBytes: 1})
	ctx := t.Context()
	reg := register(t, s.Hub, metrics.Options{Channels: []string{"room"}})
	// open sends a request whose answer goes on until the test ends, and reads a line of it.
	open := func(method, path, body string, header ...string) {
		resp := hubtest.Request(t, ctx, s.HTTP.Client(), method, s.HTTP.URL+path, body, header...)
		t.Cleanup(func() { resp.Body.Close() })
		_, err := bufio.NewReader(resp.Body).ReadString('\n')
		require.NoError(t, err)
	}
	ask := func(method, path, body string, header ...string) int {
		resp := hubtest.Request(t, ctx, s.HTTP.Client(), method, s.HTTP.URL+path, body, header...)
		hubtest.Body(t, resp)
		return resp.StatusCode
	}
	session := func(commands ...string) {
		c := s.For(t).DialRaw()
		c.Upgrade("/connection/websocket")
		for _, command := range append([]string{`{"id":1,"connect":{}}`}, commands...) {
			c.Send(hubtest.WSFrame(hubtest.RawText, command))
			_, err := c.Next()
			require.NoError(t, err)
		}
	}
	const connect = `{"id":1,"connect":{}}`
	door := func(series, door string) string { return "channels_" + series + `{door="` + door + `"}` }
	publish := func(door, outcome string) string {
		return `channels_publishes_total{door="` + door + `",outcome="` + outcome + `"}`
	}
	return makeMoves(t, reg, []move{
		{door("connections", "websocket"), func(t *testing.T) { s.For(t).DialMany(1, "room") }},
		{door("connects_total", "websocket"), func(t *testing.T) { s.For(t).DialMany(1, "room") }},
		{door("connections", "sse"), func(t *testing.T) { open("GET", "/channel/room/", "", "Accept", "text/event-stream") }},
		{door("connects_total", "sse"), func(t *testing.T) { open("GET", "/channel/room/", "", "Accept", "text/event-stream") }},
		{door("connections", "connection_websocket"), func(t *testing.T) { session() }},
		{door("connects_total", "connection_websocket"), func(t *testing.T) { session() }},
		{door("connections", "connection_sse"), func(t *testing.T) { open("POST", "/connection/sse", connect) }},
		{door("connections", "connection_http_stream"), func(t *testing.T) { open("POST", "/connection/http_stream", connect) }},
		{door("connections", "go"), func(t *testing.T) {
			_, err := s.Hub.Subscribe(ctx, "room", nil)
			require.NoError(t, err)
		}},
		{`channels_handshakes_refused_total{code="bad_channel"}`, func(t *testing.T) {
			require.Equal(t, 400, ask("GET", "/channel/a*b/", "", "Accept", "text/event-stream"))
		}},
		{`channels_handshakes_refused_total{code="bad_query"}`, func(t *testing.T) {
			require.Equal(t, 400, ask("GET", "/connection/sse", "", "Accept", "text/event-stream"))
		}},
		{`channels_http_requests_total`, func(t *testing.T) { require.Equal(t, 200, ask("GET", "/healthz", "")) }},
		{`channels_http_requests_refused_total{code="not_found"}`, func(t *testing.T) { require.Equal(t, 404, ask("GET", "/nothing", "")) }},
		{publish("http", "ok"), func(t *testing.T) {
			require.Equal(t, 200, ask("POST", "/v1/channel/room/publish", hubtest.Say(`1`)))
		}},
		{publish("http", "bad_message"), func(t *testing.T) {
			require.Equal(t, 400, ask("POST", "/v1/channel/room/publish", `{}`))
		}},
		{publish("websocket", "ok"), func(t *testing.T) {
			c := s.For(t).DialMany(1, "alone")[0]
			c.Send(hubtest.WSFrame(hubtest.RawText, hubtest.Say(`1`)))
		}},
		{publish("connection_websocket", "ok"), func(t *testing.T) { session(`{"id":2,"publish":{"channel":"room","data":1}}`) }},
		{publish("connection_websocket", "bad_channel"), func(t *testing.T) { session(`{"id":2,"publish":{"channel":"a*b","data":1}}`) }},
		{publish("bridge", "ok"), func(t *testing.T) {
			_, err := s.Hub.Bridge(channels.Identity{}).Publish(ctx, "room", hubtest.Msg("m", `1`))
			require.NoError(t, err)
		}},
		{`channels_written_bytes_total`, func(t *testing.T) { s.PublishGo("room", `1`) }},
		{`channels_deflated_messages_total`, func(t *testing.T) {
			s.For(t).DialMany(1, "room", hubtest.DeflateOffer)
			s.PublishGo("room", `1`)
		}},
	}, moved)
}

// inTime needs time to pass, which it does in a bubble.
func inTime(t *testing.T, moved map[string]bool) scraped {
	m, st := &fakeMesh{}, newFaultyStore(t)
	hub, err := channels.New(channels.Options{ReplicaID: "a", Mesh: m, Store: st, QueueBytes: 16 << 10, MaxMessageBytes: 1 << 10, Channel: func(name string) channels.ChannelOptions {
		return map[string]channels.ChannelOptions{
			"kept":   {HistorySize: 3, HistoryTTL: time.Hour},
			"oldest": {SlowSubscriber: channels.SlowDropOldest}, "latest": {SlowSubscriber: channels.SlowKeepLatest},
		}[name]
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		require.NoError(t, hub.Shutdown(context.Background()))
		require.NoError(t, st.Store.Close())
	}()
	reg := register(t, hub, metrics.Options{Channels: []string{"live"}})
	subscribe := func(channel string, from *channels.Position) {
		_, err := hub.Subscribe(ctx, channel, from)
		require.NoError(t, err)
	}
	publish := func(channel string, times int) (last channels.Result) {
		for range times {
			var err error
			last, err = hub.Publish(ctx, channel, hubtest.Msg("m", `"`+hubtest.Long(900)+`"`))
			require.NoError(t, err)
		}
		return last
	}
	comeBack := func(*testing.T) {
		at := publish("kept", 1).Position
		publish("kept", 1)
		subscribe("kept", &at)
	}
	packet := func(p mesh.Packet) func(*testing.T) { return func(*testing.T) { m.deliver(p) } }
	ways := func(series, way string) string { return "channels_" + series + `{way="` + way + `"}` }
	return makeMoves(t, reg, []move{
		{"channels_connections_limit", nil},
		{"channels_queued_bytes_limit", nil},
		{ways("canaries_sent_total", "store"), func(t *testing.T) { time.Sleep(4 * time.Second) }},
		{ways("canaries_sent_total", "mesh"), func(t *testing.T) { time.Sleep(4 * time.Second) }},
		{ways("canary_round_trip_seconds", "mesh"), func(t *testing.T) { m.answers.Store(true) }},

		{"channels_subscriptions", func(t *testing.T) { subscribe("live", nil) }},
		{"channels_channels", func(t *testing.T) { subscribe("another", nil) }},
		{"channels_patterns", func(t *testing.T) {
			_, err := hub.SubscribePattern(ctx, "li*")
			require.NoError(t, err)
		}},
		{`channels_pattern_subscriptions{pattern="live"}`, func(t *testing.T) { subscribe("live", nil) }},
		{`channels_pattern_published_messages_total{pattern="live"}`, func(t *testing.T) { publish("live", 1) }},
		{`channels_pattern_deliveries_total{pattern="live"}`, func(t *testing.T) { publish("live", 1) }},
		{`channels_pattern_channels{pattern="live"}`, nil},
		{`channels_publishes_total{door="go",outcome="ok"}`, func(t *testing.T) { publish("live", 1) }},
		{"channels_deliveries_total", func(t *testing.T) { publish("live", 1) }},
		{"channels_queued_bytes", func(t *testing.T) { publish("live", 1) }},
		{"channels_slow_subscribers_closed_total", func(t *testing.T) { publish("live", 20) }},
		{`channels_dropped_messages_total{policy="drop_oldest"}`, func(t *testing.T) {
			subscribe("oldest", nil)
			publish("oldest", 20)
		}},
		{`channels_dropped_messages_total{policy="keep_latest"}`, func(t *testing.T) {
			subscribe("latest", nil)
			publish("latest", 20)
		}},
		{"channels_delivery_duration_seconds", func(t *testing.T) {
			s, err := hub.Subscribe(ctx, "read", nil)
			require.NoError(t, err)
			time.Sleep(time.Second) // the next message is sampled in any case
			publish("read", 1)
			for range s.Messages() {
				break
			}
		}},

		{`channels_resets_total{reason="no_history"}`, func(t *testing.T) { subscribe("live", &channels.Position{Epoch: "e", Offset: 1}) }},
		{`channels_resets_total{reason="epoch"}`, func(t *testing.T) {
			publish("kept", 1)
			subscribe("kept", &channels.Position{Epoch: "e", Offset: 1})
		}},
		{`channels_resets_total{reason="trimmed"}`, func(t *testing.T) {
			publish("kept", 5)
			subscribe("kept", &channels.Position{})
		}},
		{"channels_caught_up_messages_total", comeBack},
		{"channels_catch_up_duration_seconds", comeBack},
		{`channels_fills_total{outcome="repaired"}`, st.append},
		{"channels_filled_messages_total", st.append},
		{"channels_fill_duration_seconds", st.append},

		{`channels_store_calls_total{call="append"}`, func(t *testing.T) { publish("kept", 1) }},
		{`channels_store_call_duration_seconds{call="append"}`, func(t *testing.T) { publish("kept", 1) }},
		{`channels_publishes_total{door="go",outcome="store_unavailable"}`, func(t *testing.T) {
			st.fails.Store(true)
			_, err := hub.Publish(ctx, "kept", hubtest.Msg("m", `1`))
			require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		}},
		{`channels_store_errors_total{call="append"}`, func(t *testing.T) {
			_, err := hub.Publish(ctx, "kept", hubtest.Msg("m", `1`))
			require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		}},
		{ways("canaries_lost_total", "store"), func(t *testing.T) { time.Sleep(4 * time.Second) }},
		{`channels_status{status="red"}`, func(*testing.T) {}}, // in time

		{`channels_mesh_peers{state="up"}`, func(t *testing.T) {
			m.status.Store(&mesh.Status{Peers: []mesh.Peer{{ID: "b", Up: true}}})
		}},
		{`channels_mesh_peers{state="down"}`, func(t *testing.T) { m.status.Store(&mesh.Status{Peers: []mesh.Peer{{ID: "b"}}}) }},
		{"channels_mesh_round_trip_seconds", func(t *testing.T) {
			m.status.Store(&mesh.Status{Peers: []mesh.Peer{{Up: true, RTT: time.Second}, {Up: true, RTT: time.Millisecond}}})
			require.EqualValues(t, 1, scrape(t, reg).values["channels_mesh_round_trip_seconds"])
		}},
		{"channels_mesh_queued_bytes", func(t *testing.T) { m.status.Store(&mesh.Status{Peers: []mesh.Peer{{Queued: 1}, {Queued: 2}}}) }},
		{"channels_mesh_dropped_packets_total", func(t *testing.T) { m.status.Store(&mesh.Status{Dropped: 1}) }},
		{"channels_mesh_losses_total", func(t *testing.T) { m.status.Store(&mesh.Status{Lost: 1}) }},
		{"channels_mesh_refused_connections_total", func(t *testing.T) { m.status.Store(&mesh.Status{Refused: 1}) }},
		{"channels_mesh_received_messages_total", packet(mesh.Packet{Channel: "live", Header: "m", Body: json.RawMessage(`1`), Origin: "b"})},
		{"channels_mesh_bad_packets_total", packet(mesh.Packet{Channel: "live", Header: "m", Body: json.RawMessage(`{`), Origin: "b"})},
		{"channels_mesh_unsent_messages_total", func(t *testing.T) {
			m.fails.Store(true)
			_, err := hub.Publish(ctx, "live", hubtest.Msg("m", `1`))
			require.ErrorIs(t, err, channels.ErrMeshUnavailable)
		}},
		{ways("canaries_lost_total", "mesh"), func(t *testing.T) { m.status.Store(&mesh.Status{Err: errors.New("down")}) }},

		{"channels_draining", func(t *testing.T) { go hub.Drain(ctx) }},
		{`channels_status_reason{reason="draining"}`, nil},
	}, moved)
}

// A faultyStore is a Memory that fails if it is told to.
type faultyStore struct {
	store.Store
	fails atomic.Bool
}

func newFaultyStore(t *testing.T) *faultyStore {
	t.Helper()
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	return &faultyStore{Store: m}
}

func (s *faultyStore) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if s.fails.Load() {
		return store.Appended{}, store.ErrUnavailable
	}
	return s.Store.Append(ctx, channel, e, o)
}

// append adds a message of which no mesh tells.
func (s *faultyStore) append(t *testing.T) {
	_, err := s.Append(t.Context(), "kept", store.Entry{Header: "m", Body: json.RawMessage(`1`)}, store.AppendOptions{Size: 3, TTL: time.Hour})
	require.NoError(t, err)
}

// A fakeMesh is what a test makes of it.
type fakeMesh struct {
	status  atomic.Pointer[mesh.Status]
	fails   atomic.Bool
	answers atomic.Bool // canaries
	taker   atomic.Pointer[func(mesh.Packet)]
}

func (m *fakeMesh) Publish(_ context.Context, p mesh.Packet) error {
	if m.fails.Load() {
		return errors.New("unreachable")
	}
	if p.Kind == mesh.KindControl && p.Header == "canary" && m.answers.Load() {
		go func() {
			time.Sleep(time.Millisecond)
			m.deliver(mesh.Packet{Kind: mesh.KindControl, Header: "echo", Body: p.Body, Origin: "b"})
		}()
	}
	return nil
}

func (m *fakeMesh) deliver(p mesh.Packet) { (*m.taker.Load())(p) }

func (m *fakeMesh) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	m.taker.Store(&deliver)
	<-ctx.Done()
	return ctx.Err()
}

func (m *fakeMesh) Status() mesh.Status {
	if s := m.status.Load(); s != nil {
		return *s
	}
	return mesh.Status{}
}

func (m *fakeMesh) Subscribe(string) error         { return nil }
func (m *fakeMesh) Unsubscribe(string) error       { return nil }
func (m *fakeMesh) SubscribePrefix(string) error   { return nil }
func (m *fakeMesh) UnsubscribePrefix(string) error { return nil }
func (m *fakeMesh) Close() error                   { return nil }
