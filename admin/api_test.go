package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/store"
)

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// history has a hub keep histories and presence of channels that begin with "h.".
func history() channels.Options {
	return channels.Options{ReplicaID: "r1", Channel: func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "h.") {
			return channels.ChannelOptions{HistorySize: 1000, Presence: channels.PresenceList}
		}
		return channels.ChannelOptions{}
	}}
}

type overview struct {
	Replica  string `json:"replica"`
	Replicas []struct {
		ID         string   `json:"id"`
		Status     string   `json:"status"`
		Reasons    []any    `json:"reasons"`
		Go         string   `json:"go"`
		Deliveries *float64 `json:"deliveries_s"`
		Memory     int64    `json:"memory"`
		Processors int      `json:"processors"`
	} `json:"replicas"`
	Totals struct {
		Replicas, Green, Connections int
		Deliveries                   *float64 `json:"deliveries_s"`
	} `json:"totals"`
	Store   struct{ Status, Words string } `json:"store"`
	Scaling *struct {
		Known  bool
		Wanted int
		Late   bool
		Error  string
	} `json:"scaling"`
	Again int `json:"again_ms"`
}

func TestOverview(t *testing.T) {
	b := serve(t, history(), admin.Options{}).browser().login()
	o := get[overview](b, "api/overview")
	require.Equal(t, "r1", o.Replica)
	require.Len(t, o.Replicas, 1)
	require.Equal(t, "r1", o.Replicas[0].ID)
	require.Equal(t, "green", o.Replicas[0].Status)
	require.Equal(t, []any{}, o.Replicas[0].Reasons)
	require.NotEmpty(t, o.Replicas[0].Go)
	require.Positive(t, o.Replicas[0].Processors)
	require.Equal(t, "green", o.Store.Status)
	require.Nil(t, o.Scaling)
	require.LessOrEqual(t, o.Again, 1000)
	basetest.Eventually(t, "the rates are known", func() bool {
		r := get[overview](b, "api/overview").Replicas[0]
		return r.Deliveries != nil && r.Memory > 0
	})
	o = get[overview](b, "api/overview")
	require.Equal(t, [3]int{1, 1, 0}, [3]int{o.Totals.Replicas, o.Totals.Green, o.Totals.Connections})
	require.Zero(t, *o.Totals.Deliveries)
	b.wantRefused(400, "bad_request", "GET", "api/overview?x=1", "")
}

// Replicas that share no Store list only their own channels, and say so.
func TestWithoutACommonStore(t *testing.T) {
	memory, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { memory.Close() })
	type answer struct{ Own bool }
	for _, c := range []struct {
		name string
		store.Store
		own bool
	}{{"memory", memory, true}, {"common", struct{ store.Store }{memory}, false}} {
		t.Run(c.name, func(t *testing.T) {
			b := serve(t, channels.Options{ReplicaID: "r1", Store: c.Store}, admin.Options{}).browser().login()
			require.False(t, get[answer](b, "api/channels").Own, "it is the only replica")
			other := store.Replica{ID: "r2", Info: json.RawMessage(`{"node":"r2","status":"green","reasons":[],"started":"2026-01-01T00:00:00Z"}`)}
			_, err := memory.Report(t.Context(), store.Report{Replica: other})
			require.NoError(t, err)
			basetest.Eventually(t, "the page sees the other replica", func() bool { return len(get[overview](b, "api/overview").Replicas) == 2 })
			require.Equal(t, c.own, get[answer](b, "api/channels").Own)
			require.Equal(t, c.own, get[struct{ Store answer }](b, "api/overview").Store.Own)
			require.NoError(t, memory.Forget(t.Context(), "r2"))
		})
	}
}

// What happens shows up in the points, one a second.
func TestPoints(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	_, err := s.Hub.Subscribe(t.Context(), "a", nil)
	require.NoError(t, err)
	type points struct {
		Seconds     []int64
		Publishes   []*float64 `json:"publishes_s"`
		Connections []int
		Replicas    []int
	}
	basetest.Eventually(t, "a publish is in a point", func() bool {
		s.PublishGo("a", "1")
		p := get[points](b, "api/points")
		require.Len(t, p.Publishes, len(p.Seconds))
		for i, n := range p.Publishes {
			if n != nil && *n > 0 {
				require.Equal(t, 1, p.Connections[i])
				require.Equal(t, 1, p.Replicas[i])
				return true
			}
		}
		return false
	})
	all := get[points](b, "api/points").Seconds
	last := all[len(all)-1]
	for _, second := range get[points](b, fmt.Sprintf("api/points?after=%d", last)).Seconds {
		require.Greater(t, second, last)
	}
	for _, wrong := range []string{"-1", "x", "1.5", "99999999999999999999"} {
		require.Contains(t, b.wantRefused(400, "bad_request", "GET", "api/points?after="+wrong, ""), "after is")
	}
}

type row struct {
	Name                   string
	Subscribers, Publishes int
}

type list struct {
	Channels      []row
	Offset, Total int
	More          bool
}

func TestChannels(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	for i := range 5 {
		name := fmt.Sprintf("room.%d", i)
		for range i {
			sub, err := s.Hub.Subscribe(t.Context(), name, nil)
			require.NoError(t, err)
			t.Cleanup(sub.Close)
		}
		for range 5 - i {
			s.PublishGo(name, "1")
		}
	}
	names := func(query string) (all []string) {
		for _, c := range get[list](b, "api/channels?"+query).Channels {
			all = append(all, c.Name)
		}
		return all
	}
	basetest.Eventually(t, "the list has all of them", func() bool { return get[list](b, "api/channels").Total == 5 })
	require.Equal(t, row{"room.4", 4, 1}, get[list](b, "api/channels").Channels[0])
	require.Equal(t, []string{"room.4", "room.3", "room.2", "room.1", "room.0"}, names("sort=subscribers"))
	require.Equal(t, []string{"room.0", "room.1", "room.2", "room.3", "room.4"}, names("sort=publishes"))
	require.Equal(t, []string{"room.1", "room.2"}, names("sort=name&offset=1&limit=2"))
	require.Equal(t, []string{"room.3"}, names("contains=m.3"))
	require.Equal(t, []string{"room.3"}, names("prefix=room.3"))
	require.Empty(t, names("contains=nothing"))
	require.Empty(t, names("offset=5"))
	require.Empty(t, names("offset=99"))
	for query, says := range map[string]string{"sort=x": "sort is", "limit=201": "limit is", "offset=-1": "offset is", "prefix=" + strings.Repeat("x", 300): "prefix has", "a=b": "no parameter", "sort=name&sort=name": "comes twice", "a=%zz": "query"} {
		require.Contains(t, b.wantRefused(400, "bad_request", "GET", "api/channels?"+query, ""), says)
	}
}

// 100,000 channels of another replica are sorted, searched and paged through.
func TestManyChannels(t *testing.T) {
	st := hubtest.NewMemory(t)
	s := serve(t, channels.Options{Store: st, StoreTimeout: time.Minute}, admin.Options{}) // a busy machine, with the race detector, may need many seconds
	b := s.browser().login()
	report := store.Report{Replica: store.Replica{ID: "other", Info: []byte(`{}`)}}
	for i := range 100_000 {
		report.Channels = append(report.Channels, store.Count{Channel: fmt.Sprintf("c%05d", i), Subscribers: 1 + i%1000, Publishes: i})
	}
	_, err := st.Report(t.Context(), report)
	require.NoError(t, err)
	l := get[list](b, "api/channels?sort=publishes&limit=1")
	require.Equal(t, 100_000, l.Total)
	require.Equal(t, []row{{"c99999", 1000, 99_999}}, l.Channels)
	l = get[list](b, "api/channels?offset=99999&limit=10")
	require.Equal(t, []row{{"c99000", 1, 99_000}}, l.Channels)
	l = get[list](b, "api/channels?sort=name&contains=999&offset=279")
	require.Equal(t, 280, l.Total)
	require.Equal(t, "c99999", l.Channels[0].Name)
	require.False(t, l.More)
}

type channel struct {
	row
	History *struct {
		Epoch, Offset, First string
		Messages             []struct {
			Header, Body, Offset string
			Bytes                int
			Time                 int64 `json:"time_ms"`
		}
	}
	Presence *struct {
		Total   int
		Members []struct{ Client, User string }
	}
}

// join enters a channel with a WebSocket.
func join(t *testing.T, s *served, name string) *websocket.Conn {
	t.Helper()
	c, _, err := hubtest.Dial(t, s.HTTP.URL+"/channel/"+name+"/", websocket.DialOptions{})
	require.NoError(t, err)
	return c
}

func TestOneChannel(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	for i := range 60 {
		s.PublishGo("h.a", fmt.Sprint(i))
	}
	s.PublishGo("h.a", `"`+strings.Repeat("ü", 5000)+`"`)
	join(t, s, "h.a")
	basetest.Eventually(t, "the member is there", func() bool { return get[channel](b, "api/channel?name=h.a").Presence.Total == 1 })
	c := get[channel](b, "api/channel?name=h.a")
	require.Equal(t, row{"h.a", 1, 61}, c.row)
	require.Len(t, c.Presence.Members, 1)
	require.Equal(t, "61", c.History.Offset)
	require.Equal(t, "1", c.History.First)
	require.Len(t, c.History.Messages, 50)
	last := c.History.Messages[49]
	require.Equal(t, 10002, last.Bytes)
	require.True(t, strings.HasSuffix(last.Body, "ü…"))
	require.Less(t, len(last.Body), 4200)
	require.NotZero(t, last.Time)
	older := get[channel](b, "api/channel?name=h.a&before="+c.History.Messages[0].Offset)
	require.Len(t, older.History.Messages, 11)
	require.Equal(t, "0", older.History.Messages[0].Body)

	none := get[channel](b, "api/channel?name=none")
	require.Equal(t, row{Name: "none"}, none.row)
	require.Nil(t, none.History)
	require.Nil(t, none.Presence)
	b.wantRefused(400, "bad_channel", "GET", "api/channel?name=a/b", "")
	b.wantRefused(400, "bad_channel", "GET", "api/channel", "")
	b.wantRefused(400, "bad_request", "GET", "api/channel?name=a&before=x", "")
}

// batch is what a tail sends at once.
type batch struct {
	Messages []struct{ Header, Body string }
	Skipped  int
}

// tail follows a channel. next waits for what it sends.
func (b *browser) tail(name string) (next func() batch, stop func()) {
	b.T.Helper()
	r, err := http.NewRequestWithContext(b.T.Context(), "GET", b.HTTP.URL+"/ops/admin/api/tail?name="+name, nil)
	require.NoError(b.T, err)
	resp, err := b.client.Do(r)
	require.NoError(b.T, err)
	require.Equal(b.T, 200, resp.StatusCode)
	require.Equal(b.T, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	return func() (one batch) {
		b.T.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				require.NoError(b.T, json.Unmarshal([]byte(data), &one))
				return one
			}
		}
		require.FailNow(b.T, "the tail has ended", "%v", lines.Err())
		return one
	}, func() { resp.Body.Close() }
}

func TestTail(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	next, stop := b.tail("a")
	defer stop()
	s.PublishGo("a", `"<b>"`)
	one := next()
	require.Equal(t, "m", one.Messages[0].Header)
	require.Equal(t, `"<b>"`, one.Messages[0].Body)
	require.Zero(t, one.Skipped)

	// What nobody can read is counted. The rest comes in order.
	seen := 0
	for i := range 2000 {
		s.PublishGo("a", fmt.Sprint(i))
	}
	for seen < 2000 {
		one := next()
		require.LessOrEqual(t, len(one.Messages), 50)
		seen += one.Skipped
		for _, m := range one.Messages {
			require.Equal(t, fmt.Sprint(seen), m.Body)
			seen++
		}
	}
	require.Equal(t, 2000, seen)
	b.wantRefused(400, "bad_channel", "GET", "api/tail?name=a/b", "")
}

func TestTailsAreBounded(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	var stops []func()
	for range 32 {
		_, stop := b.tail("a")
		stops = append(stops, stop)
	}
	b.wantRefused(503, "too_many_tails", "GET", "api/tail?name=a", "")
	for _, stop := range stops {
		stop()
	}
	basetest.Eventually(t, "their subscriptions have ended", func() bool { return s.Hub.Stats().Connections == 0 })
}

// Close ends those who follow a channel.
func TestCloseEndsTails(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	_, stop := s.browser().login().tail("a")
	defer stop()
	require.NoError(t, s.page.Close())
	require.Zero(t, s.Hub.Stats().Connections)
}

func TestPublish(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	sub, err := s.Hub.Subscribe(t.Context(), "h.a", nil)
	require.NoError(t, err)
	defer sub.Close()
	_, stop := b.tail("h.a") // whoever only looks is no subscriber to an operator
	defer stop()
	require.Equal(t, 1, get[channel](b, "api/channel?name=h.a").Subscribers)
	_, list := b.do("GET", "api/channels", "")
	require.Contains(t, list, `"name":"h.a","subscribers":1,`)
	resp, text := b.do("POST", "api/publish", `{"channel":"h.a","header":"test","body":{"a":[1,"ü"]}}`)
	require.Equal(t, 200, resp.StatusCode, text)
	require.Contains(t, text, `"receivers":1,"offset":"1"`)
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "test", m.Header)
		require.JSONEq(t, `{"a":[1,"ü"]}`, string(m.Body))
		break
	}
	line := s.log.Line("admin: published a message")
	require.Contains(t, line, "channel=h.a")
	require.Contains(t, line, "operator=\"session ")

	for body, code := range map[string]string{
		`{"channel":"a/b","header":"h","body":1}`: "bad_channel", `{"channel":"a","header":"","body":1}`: "bad_message", `{"channel":"a","header":"ping","body":1}`: "reserved_header",
		`{"channel":"a","header":"h"}`: "bad_message", `{"channel":"a","header":"h","body":}`: "bad_request", `{"chanel":"a"}`: "bad_request", ``: "bad_request", `[]`: "bad_request",
	} {
		b.wantRefused(400, code, "POST", "api/publish", body)
	}
	require.Contains(t, s.log.Line("admin: not published a message"), "level=WARN")
	b.wantRefused(413, "too_large", "POST", "api/publish", `{"channel":"`+strings.Repeat("x", 1<<20)+`"}`)
	b.header.Set("Content-Type", "text/plain")
	b.wantRefused(400, "bad_request", "POST", "api/publish", `{"channel":"a","header":"h","body":1}`)
}

func TestDisconnect(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	ws := join(t, s, "h.a")
	basetest.Eventually(t, "the member is there", func() bool { return get[channel](b, "api/channel?name=h.a").Presence.Total == 1 })
	id := get[channel](b, "api/channel?name=h.a").Presence.Members[0].Client
	resp, text := b.do("POST", "api/disconnect", `{"client":"`+id+`"}`)
	require.Equal(t, 200, resp.StatusCode, text)
	require.JSONEq(t, `{"here":1}`, text)
	var err error
	for err == nil {
		_, _, err = ws.Read(t.Context())
	}
	require.Equal(t, websocket.StatusCode(3003), websocket.CloseStatus(err))
	require.Contains(t, s.log.Line("admin: disconnected a connection"), "client="+id)

	_, text = b.do("POST", "api/disconnect", `{"user":"nobody"}`)
	require.JSONEq(t, `{"here":0}`, text)
	require.Contains(t, s.log.Line("admin: disconnected a user"), "user=nobody")
	for _, body := range []string{`{}`, `{"user":"a","client":"b"}`, `{"user":5}`} {
		b.wantRefused(400, "bad_request", "POST", "api/disconnect", body)
	}
}

// After Shutdown, the page says that the hub is closed.
func TestAfterShutdown(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	require.NoError(t, s.Hub.Shutdown(t.Context()))
	basetest.Eventually(t, "the look that is still good", func() bool {
		resp, _ := b.do("GET", "api/overview", "")
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	b.wantRefused(503, "closed", "GET", "api/channels", "")
	b.wantRefused(503, "closed", "GET", "api/tail?name=a", "")
}
