package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// keeps gives history to the channels whose names begin with "h", presence to
// those that begin with "p", and nothing to others.
func keeps(name string) channels.ChannelOptions {
	switch name[0] {
	case 'h':
		return channels.ChannelOptions{HistorySize: 5}
	case 'p':
		return channels.ChannelOptions{Presence: channels.PresenceList}
	}
	return channels.ChannelOptions{}
}

// wantFail wants the one form that all refusals have, and nothing more in it.
func (a answer) wantFail(t *testing.T, status int, code string) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, code, a.code(), a.body)
	require.NotEmpty(t, a.message(), a.body)
	var shape struct {
		Status string `json:"status"`
		Error  struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&shape), a.body)
	require.Equal(t, "fail", shape.Status)
	require.Equal(t, "application/json; charset=utf-8", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
}

// wantOK wants this text, so that not only the values but the keys are right.
func (a answer) wantOK(t *testing.T, body string) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Equal(t, body, strings.TrimSpace(a.body))
}

// asUser is an app's own middleware: the user is who the header says.
func asUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := r.Header.Get("X-User"); u != "" {
			info, _ := json.Marshal(map[string]string{"name": strings.ToUpper(u)})
			r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: u, Info: info}))
		}
		next.ServeHTTP(w, r)
	})
}

// joinAs is join with headers.
func (s *server) joinAs(channel string, header ...string) *wsClient {
	s.t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	w, _, err := s.tryDial("/channel/"+url.PathEscape(channel)+"/", &websocket.DialOptions{HTTPHeader: h})
	require.NoError(s.t, err)
	return w
}

// numbers are what the list says of one channel.
func (s *server) numbers(channel string) (cnt, rpm int) {
	s.t.Helper()
	c, err := s.hub.Channel(context.Background(), channel)
	require.NoError(s.t, err)
	return c.Subscribers, c.Publishes
}

func TestHTTPPublish(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	t.Run("a channel without history answers without a position", func(t *testing.T) {
		w := s.join("plain", "")
		s.publish("plain", "a", `{"n": 1}`).wantOK(t, `{"status":"ok"}`)
		m := w.want("a", `{"n": 1}`)
		require.Zero(t, m.Offset)
		require.Empty(t, m.Epoch)
	})
	t.Run("a channel with history answers with the position that subscribers see", func(t *testing.T) {
		w := s.join("h", "")
		for i := 1; i <= 2; i++ {
			a := s.publish("h", "a", `[]`)
			m := w.want("a", `[]`)
			a.wantOK(t, fmt.Sprintf(`{"status":"ok","offset":%d,"epoch":%q}`, i, m.Epoch))
			require.Equal(t, uint64(i), m.Offset)
			require.NotEmpty(t, m.Epoch)
		}
	})
	t.Run("any content type", func(t *testing.T) {
		for _, typ := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"} {
			a := s.do("POST", "/v1/channel/plain/publish", `{"header":"a","body":1}`, "Content-Type", typ)
			a.wantOK(t, `{"status":"ok"}`)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		s.publish("nobody", "a", `1`).wantOK(t, `{"status":"ok"}`)
	})
}

func TestHTTPPublishManyMessages(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps, OnPublish: func(_ context.Context, p *channels.Publication) error {
		if p.Channel == "locked" {
			return &channels.Error{Code: "locked", Message: "not now", Status: http.StatusConflict}
		}
		return nil
	}})
	one, two, h := s.join("one", ""), s.join("two", ""), s.join("h", "")

	t.Run("one message to many channels", func(t *testing.T) {
		a := s.do("POST", "/v1/publish", `{"channels":["one","two"],"header":"x","body":{"a":null}}`)
		a.wantOK(t, `{"status":"ok","results":[{"status":"ok","channel":"one"},{"status":"ok","channel":"two"}]}`)
		one.want("x", `{"a":null}`)
		two.want("x", `{"a":null}`)
	})
	t.Run("one message to many channels, some of which refuse", func(t *testing.T) {
		a := s.do("POST", "/v1/publish", `{"channels":["one","a/b","locked","","two"],"header":"y","body":1}`)
		require.Equal(t, 200, a.status)
		require.Equal(t, "fail", a.json["status"])
		require.Equal(t, []string{"one ok", "a/b bad_channel", "locked locked", " bad_channel", "two ok"}, outcomes(t, a))
		one.want("y", `1`)
		two.want("y", `1`)
	})
	t.Run("many messages, some of which are wrong", func(t *testing.T) {
		a := s.do("POST", "/v1/publish", `{"messages":[
			{"channel":"h","header":"x","body":1},
			{"channel":"h","header":"error","body":2},
			{"channel":"h","header":3,"body":3},
			{"channel":"h","header":"x"},
			{"header":"x","body":5},
			{"channel":"h","header":"x","body":6,"idempotency_key":"k"},
			{"channel":"h","header":"x","body":6,"key":"k"},
			{"channel":"h","header":"x","body":7,"key":"k"},
			{"channel":"one","header":"x","body":8,"idempotency_key":"k"},
			{"channel":"h","header":"x","body":9,"idempotency_key":"a b"},
			{"channel":"h","header":"x","body":null}]}`)
		require.Equal(t, 200, a.status)
		require.Equal(t, []string{"h ok", "h reserved_header", "h bad_message", "h bad_message", " bad_channel",
			"h ok", "h ok", "h key_reused", "one no_history", "h bad_idempotency_key", "h ok"}, outcomes(t, a))
		epoch := h.want("x", `1`).Epoch
		h.want("x", `6`)
		h.want("x", `null`)
		results := a.json["results"].([]any)
		require.Equal(t, map[string]any{"status": "ok", "channel": "h", "offset": 1.0, "epoch": epoch}, results[0])
		repeat := maps.Clone(results[5].(map[string]any))
		repeat["duplicate"] = true
		require.Equal(t, repeat, results[6], "a repeat has the answer of the first, and says that it is one")
		refused := results[1].(map[string]any)
		require.ElementsMatch(t, []string{"code", "message"}, keysOf(refused["error"]))
		require.ElementsMatch(t, []string{"status", "channel", "error"}, keysOf(refused))
	})
	t.Run("one key for many channels is one for each", func(t *testing.T) {
		send := func() answer {
			return s.do("POST", "/v1/publish", `{"channels":["h1","h2"],"header":"x","body":1,"idempotency_key":"z"}`)
		}
		first := send()
		require.Equal(t, "ok", first.json["status"], first.body)
		require.Equal(t, strings.ReplaceAll(first.body, `"}`, `","duplicate":true}`), send().body)
	})

	many := func(n int) string {
		return `{"channels":[` + strings.TrimSuffix(strings.Repeat(`"c",`, n), ",") + `],"header":"x","body":1}`
	}
	t.Run("1000 at a time", func(t *testing.T) {
		a := s.do("POST", "/v1/publish", many(1000))
		require.Equal(t, "ok", a.json["status"])
		require.Len(t, a.json["results"], 1000)
		_, rpm := s.numbers("c")
		require.Equal(t, 1000, rpm)
	})
	for name, c := range map[string]struct {
		body, code string
		status     int
		header     []string
	}{
		"nothing":                 {``, "bad_json", 400, nil},
		"broken":                  {`{"channels":`, "bad_json", 400, nil},
		"wrong UTF-8":             {"{\"channels\":[\"\xff\"]}", "bad_utf8", 400, nil},
		"an array":                {`[]`, "bad_message", 400, nil},
		"null":                    {`null`, "bad_message", 400, nil},
		"neither form":            {`{}`, "bad_message", 400, nil},
		"no channels":             {`{"channels":[],"header":"a","body":1}`, "bad_message", 400, nil},
		"no messages":             {`{"messages":[]}`, "bad_message", 400, nil},
		"only one channel":        {`{"channel":"one","header":"a","body":1}`, "bad_message", 400, nil},
		"both forms":              {`{"messages":[{"channel":"one","header":"a","body":1}],"channels":["two"]}`, "bad_message", 400, nil},
		"messages and a body":     {`{"messages":[{"channel":"one","header":"a","body":1}],"body":1}`, "bad_message", 400, nil},
		"channels of wrong type":  {`{"channels":"one","header":"a","body":1}`, "bad_message", 400, nil},
		"numbers for channels":    {`{"channels":[1],"header":"a","body":1}`, "bad_message", 400, nil},
		"messages of wrong type":  {`{"messages":{}}`, "bad_message", 400, nil},
		"numbers for messages":    {`{"messages":[1]}`, "bad_message", 400, nil},
		"too many":                {many(1001), "too_large", 413, nil},
		"the key of one message":  {many(2), "bad_idempotency_key", 400, []string{"Idempotency-Key", "k"}},
		"longer than any request": {`{"x":"` + strings.Repeat("x", 3<<20) + `"}`, "too_large", 413, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s.do("POST", "/v1/publish", c.body, c.header...).wantFail(t, c.status, c.code)
		})
	}
	// Nothing of what was refused has reached anybody.
	s.publish("one", "last", `0`)
	one.want("last", `0`)
}

// outcomes are "channel code" for each result of a batch.
func outcomes(t *testing.T, a answer) (got []string) {
	t.Helper()
	for _, r := range a.json["results"].([]any) {
		r := r.(map[string]any)
		channel, _ := r["channel"].(string)
		if r["status"] == "ok" {
			require.NotContains(t, r, "error")
			got = append(got, channel+" ok")
			continue
		}
		require.Equal(t, "fail", r["status"])
		got = append(got, channel+" "+r["error"].(map[string]any)["code"].(string))
	}
	return got
}

func keysOf(v any) (keys []string) {
	for k := range v.(map[string]any) {
		keys = append(keys, k)
	}
	return keys
}

// One request for many channels is as many publishes as channels: what the
// hook does to one of them must not show in the others.
func TestHTTPPublishManyGivesEachHookItsOwnBody(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s := serve(t, channels.Options{OnPublish: func(_ context.Context, p *channels.Publication) error {
		mu.Lock()
		seen = append(seen, string(p.Message.Body))
		mu.Unlock()
		copy(p.Message.Body, `"changed"`) // in place: the message is the hook's to change
		return nil
	}})
	s.do("POST", "/v1/publish", `{"channels":["a","b"],"header":"x","body":"1234567"}`).
		wantOK(t, `{"status":"ok","results":[{"status":"ok","channel":"a"},{"status":"ok","channel":"b"}]}`)
	require.Equal(t, []string{`"1234567"`, `"1234567"`}, seen)
}

func TestHTTPList(t *testing.T) {
	t.Run("empty", func(t *testing.T) {
		s := serve(t, channels.Options{})
		s.do("GET", "/v1/channel", "").wantOK(t, `{"data":[],"next":""}`)
		s.do("GET", "/v1/channel?prefix=none", "").wantOK(t, `{"data":[],"next":""}`)
	})
	t.Run("rows", func(t *testing.T) {
		s := serve(t, channels.Options{})
		s.join("b", "")
		s.join("b", "")
		s.join("a", "")
		s.publish("a", "x", `1`)
		s.publish("c", "x", `1`)
		s.publish("c", "x", `2`)
		s.do("GET", "/v1/channel", "").wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0},{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		a := s.do("GET", "/v1/channel?limit=2", "")
		next, _ := a.json["next"].(string)
		require.NotEmpty(t, next)
		a.wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0}],"next":"`+next+`"}`)
		s.do("GET", "/v1/channel?limit=2&cursor="+next, "").wantOK(t, `{"data":[{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		s.do("GET", "/v1/channel?limit=3", "").wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0},{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		s.do("GET", "/v1/channel?prefix=b&_=123", "").wantOK(t, `{"data":[{"channel_name":"b","cnt":2,"rpm":0}],"next":""}`)
	})

	s := serve(t, channels.Options{})
	for query, code := range map[string]string{
		"limit=0":                    "bad_query",
		"limit=-1":                   "bad_query",
		"limit=1001":                 "bad_query",
		"limit=x":                    "bad_query",
		"limit=1e2":                  "bad_query",
		"limit=1.0":                  "bad_query",
		"limit=1&limit=2":            "bad_query",
		"prefix=a/b":                 "bad_query",
		"prefix=a%20b":               "bad_query",
		"prefix=%FF":                 "bad_query",
		"prefix=%zz":                 "bad_query",
		"prefix=a;limit=1":           "bad_query",
		"cursor=!":                   "bad_query",
		"cursor=Lw":                  "bad_query", // "/", no channel's name
		"cursor=YQ==":                "bad_query",
		"cursor=a&cursor=b":          "bad_query",
		"prefix=" + long(201):        "bad_query",
		"limit=99999999999999999999": "bad_query",
		"limits=1":                   "bad_query",
	} {
		t.Run(query[:min(len(query), 30)], func(t *testing.T) {
			s.do("GET", "/v1/channel?"+query, "").wantFail(t, 400, code)
		})
	}
	for _, query := range []string{"limit=1", "limit=1000", "limit=", "prefix=", "cursor=", "prefix=.", "prefix=..", "prefix=" + long(200), "_=1&_=2"} {
		t.Run(query[:min(len(query), 30)], func(t *testing.T) {
			require.Equal(t, 200, s.do("GET", "/v1/channel?"+query, "").status)
		})
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// Pages are complete and have no channel twice, also while others come and go.
func TestHTTPListPages(t *testing.T) {
	s := serve(t, channels.Options{})
	var names []string
	for i := range 3000 {
		// Names that sort in another order than they were made, some of them
		// prefixes of others, some beyond ASCII.
		name := fmt.Sprintf("%s%d", []string{"room.", "user:", "한국-", "room"}[i%4], i*7919%3000)
		names = append(names, name)
		_, err := s.hub.Publish(t.Context(), name, msg("a", "1"))
		require.NoError(t, err)
	}
	slices.Sort(names)
	names = slices.Compact(names)

	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.hub.Publish(context.Background(), fmt.Sprintf("room.late%d", i%500), msg("a", "1"))
			}
		}
	})
	t.Cleanup(func() { close(stop); others.Wait() })

	for _, c := range []struct {
		prefix string
		limit  int
	}{{"", 1000}, {"", 97}, {"room", 100}, {"room.", 250}, {"한국-", 1000}, {"user:1", 1}, {"none", 10}} {
		t.Run(fmt.Sprintf("prefix %q by %d", c.prefix, c.limit), func(t *testing.T) {
			var want, got []string
			for _, n := range names {
				if strings.HasPrefix(n, c.prefix) {
					want = append(want, n)
				}
			}
			cursor := ""
			for {
				a := s.do("GET", fmt.Sprintf("/v1/channel?prefix=%s&limit=%d&cursor=%s", url.QueryEscape(c.prefix), c.limit, cursor), "")
				require.Equal(t, 200, a.status, a.body)
				rows := a.json["data"].([]any)
				require.LessOrEqual(t, len(rows), c.limit)
				for _, r := range rows {
					if n := r.(map[string]any)["channel_name"].(string); !strings.HasPrefix(n, "room.late") {
						got = append(got, n)
					}
				}
				if cursor = a.json["next"].(string); cursor == "" {
					break
				}
				require.Len(t, rows, c.limit, "only the last page may be short")
			}
			require.Equal(t, want, got)
		})
	}
	t.Run("100 without a limit", func(t *testing.T) {
		require.Len(t, s.do("GET", "/v1/channel", "").json["data"], 100)
	})
}

// rpm counts what was published in the last minute, by whom ever, once.
func TestHTTPListCountsPublishes(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps, OnPublish: func(_ context.Context, p *channels.Publication) error {
		if p.Message.Header == "no" {
			return channels.ErrForbidden
		}
		return nil
	}})
	w := s.join("h", "")
	s.publish("h", "http", `1`)
	w.send(`{"header":"ws","body":1}`)
	_, err := s.hub.Publish(t.Context(), "h", msg("go", "1"))
	require.NoError(t, err)
	for range 3 {
		s.do("POST", "/v1/channel/h/publish", `{"header":"key","body":1}`, "Idempotency-Key", "k")
	}
	s.do("POST", "/v1/channel/h/publish", `{"header":"no","body":1}`).wantFail(t, 403, "forbidden")
	s.do("POST", "/v1/channel/h/publish", `{"header":"","body":1}`).wantFail(t, 400, "bad_message")
	for range 5 { // http, ws, go, key, and the answer to ws
		w.next()
	}
	cnt, rpm := s.numbers("h")
	require.Equal(t, 1, cnt)
	require.Equal(t, 4, rpm)
}

func TestHTTPListLosesAChannelWithItsLastSubscriber(t *testing.T) {
	t.Parallel()
	s := serve(t, channels.Options{})
	a, b := s.join("quiet", ""), s.join("quiet", "")
	e := s.stream("quiet", "")
	s.do("GET", "/v1/channel", "").wantOK(t, `{"data":[{"channel_name":"quiet","cnt":3,"rpm":0}],"next":""}`)
	a.c.Close(websocket.StatusNormalClosure, "")
	until(t, "two are left", func() bool { n, _ := s.numbers("quiet"); return n == 2 })
	b.c.CloseNow()
	e.close()
	until(t, "the list is empty", func() bool { return strings.HasPrefix(s.do("GET", "/v1/channel", "").body, `{"data":[]`) })
	// And the hub forgets it: a name costs nothing for ever.
	until(t, "the channel is freed", func() bool { return s.hub.Stats().Channels == 0 })
}

func TestHTTPOneChannel(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	t.Run("unknown", func(t *testing.T) {
		s.do("GET", "/v1/channel/x", "").wantOK(t, `{"data":{"channel_name":"x","cnt":0,"rpm":0}}`)
		s.do("GET", "/v1/channel/h0", "").wantOK(t, `{"data":{"channel_name":"h0","cnt":0,"rpm":0}}`)
	})
	t.Run("without history", func(t *testing.T) {
		s.join("a", "")
		s.publish("a", "x", `1`)
		s.do("GET", "/v1/channel/a", "").wantOK(t, `{"data":{"channel_name":"a","cnt":1,"rpm":1}}`)
	})
	t.Run("with history", func(t *testing.T) {
		var last answer
		for range 7 {
			last = s.publish("h", "x", `1`)
		}
		s.do("GET", "/v1/channel/h", "").wantOK(t, fmt.Sprintf(`{"data":{"channel_name":"h","cnt":0,"rpm":7,"offset":7,"epoch":%q,"first":3}}`, last.json["epoch"]))
	})
}

func TestHTTPHistory(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	before := time.Now().Add(-time.Second)
	var epoch string
	for i := 1; i <= 7; i++ { // 5 are kept
		epoch = s.publish("h", "x", fmt.Sprint(i)).json["epoch"].(string)
	}
	t.Run("keys", func(t *testing.T) {
		a := s.do("GET", "/v1/channel/h/history?limit=1", "")
		row := a.json["data"].([]any)[0].(map[string]any)
		at, err := time.Parse(time.RFC3339, row["time"].(string))
		require.NoError(t, err)
		require.WithinRange(t, at, before, time.Now().Add(time.Second))
		a.wantOK(t, fmt.Sprintf(`{"data":[{"header":"x","body":7,"offset":7,"epoch":%q,"time":%q}],"offset":7,"epoch":%[1]q,"first":3,"missed":false}`, epoch, row["time"]))
	})
	t.Run("none yet", func(t *testing.T) {
		s.do("GET", "/v1/channel/h0/history", "").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":false}`)
		s.do("GET", "/v1/channel/h0/history?since=:0", "").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":false}`)
		s.do("GET", "/v1/channel/h0/history?since=old:3", "").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":true}`)
	})
	E := func(n int) string { return fmt.Sprintf("since=%s:%d", epoch, n) }
	for query, want := range map[string]string{
		"":                         "3 4 5 6 7",
		"limit=2":                  "6 7",
		"limit=1000":               "3 4 5 6 7",
		"before=6&limit=2":         "4 5",
		"before=3":                 "",
		"before=1":                 "",
		"before=99&limit=1":        "7",
		E(5):                       "6 7",
		E(3) + "&limit=2":          "4 5",
		E(3) + "&before=6":         "4 5",
		E(7):                       "",
		E(2):                       "3 4 5 6 7",
		E(1):                       "3 4 5 6 7 missed",
		E(0):                       "3 4 5 6 7 missed",
		"since=:0":                 "3 4 5 6 7 missed",
		"since=:5":                 "3 4 5 6 7 missed",
		E(8):                       "missed",
		E(8) + "&limit=1":          "missed",
		"since=other:5":            "3 4 5 6 7 missed",
		"since=other:5&limit=2":    "3 4 missed",
		"since=" + epoch + "%3A6":  "7",
		"since=&before=&limit=&_=": "3 4 5 6 7",
	} {
		t.Run("?"+strings.ReplaceAll(query, epoch, "EPOCH"), func(t *testing.T) {
			a := s.do("GET", "/v1/channel/h/history?"+query, "")
			require.Equal(t, 200, a.status, a.body)
			var got []string
			for _, r := range a.json["data"].([]any) {
				require.Equal(t, r.(map[string]any)["offset"], r.(map[string]any)["body"])
				got = append(got, fmt.Sprint(r.(map[string]any)["offset"]))
			}
			if a.json["missed"].(bool) {
				got = append(got, "missed")
			}
			require.Equal(t, want, strings.Join(got, " "))
			require.Equal(t, 7.0, a.json["offset"])
			require.Equal(t, 3.0, a.json["first"])
			require.Equal(t, epoch, a.json["epoch"])
		})
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=a", "before=0", "before=-1", "before=x", "before=1&before=2",
		"since=x", "since=x:", "since=x:-1", "since=x:1.5", "since=a%20b:1", "since=" + long(65) + ":1", "since=x:99999999999999999999", "since=%zz"} {
		t.Run("refused ?"+query[:min(len(query), 30)], func(t *testing.T) {
			s.do("GET", "/v1/channel/h/history?"+query, "").wantFail(t, 400, "bad_query")
		})
	}
	t.Run("a channel without history", func(t *testing.T) {
		s.do("GET", "/v1/channel/plain/history", "").wantFail(t, 400, "no_history")
	})
}

func TestHTTPPresence(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps, ReplicaID: "n1"}, asUser)
	s.do("GET", "/v1/channel/p/presence", "").wantOK(t, `{"data":[],"cnt":0}`)
	a := s.joinAs("p", "X-User", "ann")
	s.joinAs("p", "X-User", "ann") // two connections of one user are two members
	s.joinAs("p")
	e := s.stream("p", "", "X-User", "bob")
	sub, err := s.hub.Subscribe(t.Context(), "p", nil)
	require.NoError(t, err)
	defer sub.Close() // Go code is no member

	members := func(query string) (users []string, ids []string, cnt int) {
		got := s.do("GET", "/v1/channel/p/presence"+query, "")
		require.Equal(t, 200, got.status, got.body)
		require.ElementsMatch(t, []string{"data", "cnt"}, keysOf(got.json))
		for _, m := range got.json["data"].([]any) {
			m := m.(map[string]any)
			u, _ := m["user"].(string)
			if u == "" {
				require.ElementsMatch(t, []string{"id"}, keysOf(m))
			} else {
				require.Equal(t, map[string]any{"name": strings.ToUpper(u)}, m["info"])
				require.ElementsMatch(t, []string{"id", "user", "info"}, keysOf(m))
			}
			users, ids = append(users, u), append(ids, m["id"].(string))
		}
		return users, ids, int(got.json["cnt"].(float64))
	}
	users, ids, cnt := members("")
	require.ElementsMatch(t, []string{"ann", "ann", "", "bob"}, users)
	require.True(t, slices.IsSorted(ids))
	require.Len(t, slices.Compact(ids), 4)
	require.True(t, strings.HasPrefix(ids[0], "n1-"))
	require.Equal(t, 4, cnt)

	users, _, cnt = members("?limit=2")
	require.Len(t, users, 2)
	require.Equal(t, 4, cnt)

	a.c.CloseNow()
	until(t, "one of Ann's has left", func() bool { _, _, n := members(""); return n == 3 })
	users, _, _ = members("")
	require.ElementsMatch(t, []string{"ann", "", "bob"}, users)
	e.close()
	until(t, "Bob has left", func() bool { _, _, n := members(""); return n == 2 })

	s.do("GET", "/v1/channel/a/presence", "").wantFail(t, 400, "no_presence")
	for _, q := range []string{"limit=0", "limit=-1", "limit=10001", "limit=x", "limit=1&limit=1"} {
		s.do("GET", "/v1/channel/p/presence?"+q, "").wantFail(t, 400, "bad_query")
	}
}

// What an app says of a user is the app's to get right, but one user must not
// take the presence from everybody.
func TestHTTPPresenceWithInfoThatIsNoJSON(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := channels.Identity{ID: "u", Info: json.RawMessage(r.Header.Get("X-Info"))}
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), id)))
		})
	})
	s.joinAs("p", "X-Info", `{"ok":1}`)
	s.handshake("/channel/p/", "X-Info: {broken").wantFail(t, 500, "internal")
	require.Contains(t, s.log.String(), "Identity.Info")
	require.Equal(t, 1.0, s.do("GET", "/v1/channel/p/presence", "").json["cnt"])
}

func TestHTTPMethods(t *testing.T) {
	s := serve(t, channels.Options{Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 1, Presence: channels.PresenceList}
	}})
	const get, post, stream = "GET, HEAD, OPTIONS", "POST, OPTIONS", "GET, OPTIONS"
	for path, allow := range map[string]string{
		"/channel/a":             stream,
		"/channel/a/":            stream,
		"/v1/channel/a/publish":  post,
		"/v1/publish":            post,
		"/v1/channel":            get,
		"/v1/channel/a":          get,
		"/v1/channel/a/history":  get,
		"/v1/channel/a/presence": get,
		"/healthz":               get,
		"/readyz":                get,
	} {
		t.Run(path, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
				a := s.do(method, path, "")
				other, ok := strings.CutSuffix(path, "/")
				if !ok {
					other = path + "/"
				}
				b := s.do(method, other, "")
				require.Equal(t, []any{a.status, a.code(), a.header.Get("Allow")}, []any{b.status, b.code(), b.header.Get("Allow")}, other)
				switch {
				case method == "OPTIONS":
					require.Equal(t, 204, a.status)
					require.Equal(t, allow, a.header.Get("Allow"))
					require.Empty(t, a.body)
				case method == "HEAD" && allow == get:
					require.Equal(t, 200, a.status)
					require.Empty(t, a.body)
					require.Equal(t, "application/json; charset=utf-8", a.header.Get("Content-Type"))
				case method == "HEAD":
					require.Equal(t, 405, a.status)
					require.Equal(t, allow, a.header.Get("Allow"))
				case slices.Contains(strings.Split(allow, ", "), method):
					require.NotEqual(t, 405, a.status)
				default:
					a.wantFail(t, 405, "method_not_allowed")
					require.Equal(t, allow, a.header.Get("Allow"))
					require.Contains(t, a.message(), method+" is not allowed here; "+strings.Replace(allow, ", OPTIONS", " and OPTIONS", 1)+" are")
				}
			}
		})
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/channel", "/channel", "/channel/a/b", "/channel/a//", "/channel/a/b/",
		"/v1/channel/a/other", "/v1/channel/a/history//", "/v1/channel/a/publish/x", "/v1/publish//", "/v1/publish/a", "/v1/nodes/a", "/healthz//", "/healthz/x", "//healthz", "/Healthz", "/index.html"} {
		t.Run("nothing at "+path, func(t *testing.T) {
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				s.do(method, path, "").wantFail(t, 404, "not_found")
			}
		})
	}
}

// Who posts to the channel itself is told where one publishes, with a body too.
func TestHTTPPublishAtTheWrongPath(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, path := range []string{"/channel/a/", "/v1/channel/a"} {
		for _, body := range []string{"", `{"header":"x","body":1}`} {
			a := s.do("POST", path, body)
			a.wantFail(t, 405, "method_not_allowed")
			require.Contains(t, a.message(), "POST to /v1/channel/NAME/publish", path)
		}
	}
	s.do("GET", "/channel/a/", "x").wantFail(t, 400, "bad_handshake")
	require.NotContains(t, s.do("POST", "/v1/nodes", "x").message(), "publish")
}

func TestHTTPHealth(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
	s.do("GET", "/readyz", "").wantOK(t, `{"status":"ok"}`)

	// A client that does not answer the close frame keeps Drain waiting.
	c := s.dialRaw()
	c.upgrade("/channel/a/")
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- s.hub.Drain(ctx) }()
	until(t, "not ready", func() bool { return s.do("GET", "/readyz", "").status != 200 })

	check := func(t *testing.T) {
		a := s.do("GET", "/readyz", "")
		a.wantFail(t, 503, "draining")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 503, s.do("HEAD", "/readyz", "").status)
		s.do("GET", "/channel/a/", "", "Accept", "text/event-stream").wantEnded(t, "draining")
		s.handshake("/channel/a/").wantFail(t, 503, "draining")
		s.publish("a", "x", `1`).wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 200, s.do("GET", "/v1/channel/h/history", "").status)
	}
	t.Run("while draining", check)
	cancel()
	require.ErrorIs(t, <-drained, context.Canceled)
	t.Run("after a drain that was cut short", check)
	c.close()
	require.NoError(t, s.hub.Drain(t.Context()))
	t.Run("drained", check)

	require.NoError(t, s.hub.Shutdown(t.Context()))
	t.Run("shut down", func(t *testing.T) {
		s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
		s.do("GET", "/readyz", "").wantFail(t, 503, "closed")
		s.do("GET", "/channel/a/", "", "Accept", "text/event-stream").wantEnded(t, "closed")
		s.handshake("/channel/a/").wantFail(t, 503, "closed")
		s.do("POST", "/v1/channel/a/publish", `{"header":"x","body":1}`).wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/a", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/h/history", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/p/presence", "").wantFail(t, 503, "closed")
		a := s.do("POST", "/v1/publish", `{"channels":["a","b"],"header":"x","body":1}`)
		require.Equal(t, []string{"a closed", "b closed"}, outcomes(t, a))
	})
}

func TestHTTPPlainGetIsToldToUpgrade(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		s := serve(t, channels.Options{})
		a := s.do("GET", "/channel/a/", "")
		a.wantFail(t, 426, "upgrade_required")
		require.Equal(t, "websocket", a.header.Get("Upgrade"))
		require.Equal(t, "Upgrade", a.header.Get("Connection"))
		s.do("GET", "/channel/a", "", "Accept", "text/html, */*").wantFail(t, 426, "upgrade_required")
		s.do("GET", "/channel/a/", "", "Connection", "Upgrade", "Upgrade", "h2c").wantFail(t, 426, "upgrade_required")
	})
	t.Run("HTTP/2", func(t *testing.T) {
		s := serveTLS(t, channels.Options{})
		a := s.do("GET", "/channel/a/", "")
		a.wantFail(t, 426, "upgrade_required")
		require.Empty(t, a.header.Get("Connection"), "HTTP/2 forbids it")
		require.Empty(t, a.header.Get("Upgrade"), "HTTP/2 forbids it")
		require.Contains(t, a.message(), "HTTP/1.1")

		// The same server serves events over HTTP/2, and WebSockets over HTTP/1.1.
		e := s.stream("a", "")
		require.Equal(t, 2, e.resp.ProtoMajor)
		w := s.join("a", "")
		s.publish("a", "x", `1`)
		w.want("x", `1`)
		require.Equal(t, `{"header":"x","body":1}`, e.next().data)
		w.send(`{"header":"y","body":"over TLS"}`)
		w.want("y", `"over TLS"`)
		w.want("exchange", `{"msg":"ok"}`)
		require.Equal(t, `{"header":"y","body":"over TLS"}`, e.next().data)
		e.close()
	})
}

func TestHTTPIdempotencyKey(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	post := func(channel, body string, keys ...string) answer {
		var header []string
		for _, k := range keys {
			header = append(header, "Idempotency-Key", k)
		}
		return s.do("POST", "/v1/channel/"+channel+"/publish", `{"header":"x","body":`+body+`}`, header...)
	}
	t.Run("a repeat is not published", func(t *testing.T) {
		w := s.join("h", "")
		first := post("h", `1`, "k1")
		require.Equal(t, 200, first.status)
		again := strings.Replace(strings.TrimSpace(first.body), `}`, `,"duplicate":true}`, 1)
		post("h", `1`, "k1").wantOK(t, again)
		post("h", `"other"`, "k1").wantFail(t, 409, "key_reused")
		post("h", `1`, "k1").wantOK(t, again)
		require.Equal(t, 2.0, post("h", `2`, "k2").json["offset"])
		require.Equal(t, 1.0, post("h1", `1`, "k1").json["offset"], "another channel's keys are its own")
		w.want("x", `1`)
		w.want("x", `2`)
	})
	t.Run("at the same time", func(t *testing.T) {
		var wg sync.WaitGroup
		got := make([]any, 20)
		for i := range got {
			wg.Go(func() { got[i] = post("h2", `1`, "k").json["offset"] })
		}
		wg.Wait()
		for _, offset := range got {
			require.Equal(t, 1.0, offset)
		}
		require.Len(t, s.do("GET", "/v1/channel/h2/history", "").json["data"], 1)
	})
	t.Run("the longest", func(t *testing.T) {
		require.Equal(t, 200, post("h", `1`, long(200)).status)
	})
	t.Run("a channel without history", func(t *testing.T) { post("plain", `1`, "k").wantFail(t, 400, "no_history") })
	for name, keys := range map[string][]string{
		"empty": {""}, "too long": {long(201)}, "two": {"a", "b"}, "the same twice": {"a", "a"},
		"a space": {"a b"}, "a tab": {"a\tb"}, "not ASCII": {"schlüssel"},
	} {
		t.Run(name, func(t *testing.T) { post("h", `1`, keys...).wantFail(t, 400, "bad_idempotency_key") })
	}
}

func TestHTTPNames(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, name := range []string{"a", "한국어", "a:b;c,d@e", "a+b", "a%b", "%2F", "%", "x=y&z#1", "🙂", "...", "-", "~", `"quoted"`, `back\slash`, "a.b", "'<>",
		long(200), strings.Repeat("한", 66) + "xx", "\ufffd"} {
		t.Run(name[:min(len(name), 12)], func(t *testing.T) {
			w := s.join(name, "")
			e := s.stream(name, "")
			s.publish(name, "x", `1`)
			w.want("x", `1`)
			e.next()
			for _, path := range []string{"/v1/channel/" + url.PathEscape(name), "/v1/channel/" + everyByteEscaped(name)} {
				a := s.do("GET", path, "")
				require.Equal(t, 200, a.status, a.body)
				require.Equal(t, map[string]any{"channel_name": name, "cnt": 2.0, "rpm": 1.0}, a.json["data"])
			}
			a := s.do("GET", "/v1/channel?prefix="+url.QueryEscape(name)+"&limit=1", "")
			require.Equal(t, name, a.json["data"].([]any)[0].(map[string]any)["channel_name"])
			e.close()
		})
	}
	accepted := s.hub.Stats().Connects
	for _, path := range []string{"", "%2F", "a%2Fb", "%2Fa", "%00", "a%00", "%20", "a%20b", "%09", "%0A", "%0D%0A", "*", "a*", "%2A", "%3F", "%FF", "%C3", "%ED%A0%80",
		"%7F", "%C2%85", "%C2%A0", "%E2%80%A8", "%E3%80%80", "%EF%BB%BF", "%2E", "%2E%2E", long(201), strings.Repeat("%ED%95%9C", 67)} {
		t.Run("refused "+path[:min(len(path), 12)], func(t *testing.T) {
			for _, c := range []struct{ method, path, accept string }{
				{"GET", "/channel/" + path + "/", "text/event-stream"},
				{"POST", "/v1/channel/" + path + "/publish", ""},
				{"GET", "/v1/channel/" + path, ""},
				{"GET", "/v1/channel/" + path + "/history", ""},
				{"GET", "/v1/channel/" + path + "/presence", ""},
			} {
				if c.path == "/v1/channel/" {
					continue // the list: a slash at the end makes no difference
				}
				body := ""
				if c.method == "POST" {
					body = `{"header":"x","body":1}`
				}
				s.do(c.method, c.path, body, "Accept", c.accept).wantFail(t, 400, "bad_channel")
			}
			s.handshake("/channel/"+path+"/").wantFail(t, 400, "bad_channel")
		})
	}
	t.Run("bad escapes", func(t *testing.T) {
		for _, path := range []string{"/channel/%zz/", "/channel/%", "/v1/channel/a%2"} {
			c := s.dialRaw() // a client that does not correct them
			a := c.ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 400, a.status)
		}
		s.do("GET", "/channel/a/?since=%zz", "", "Accept", "text/event-stream").wantFail(t, 400, "bad_query")
	})
	require.Equal(t, accepted, s.hub.Stats().Connects)
}

func everyByteEscaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}

func TestHTTPMounted(t *testing.T) {
	mux := func(pattern, strip string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			m := http.NewServeMux()
			if strip != "" {
				h = http.StripPrefix(strip, h)
			}
			m.Handle(pattern, h)
			return m
		}
	}
	for name, c := range map[string]struct {
		middleware func(http.Handler) http.Handler
		base       string
	}{
		"in a mux at the root":         {mux("/", ""), ""},
		"below a path":                 {mux("/rt/", "/rt"), "/rt"},
		"below a path, with its slash": {mux("/rt/", "/rt/"), "/rt"},
		"below a path of two parts":    {mux("/api/rt/", "/api/rt"), "/api/rt"},
		"below a path without a mux":   {func(h http.Handler) http.Handler { return http.StripPrefix("/rt", h) }, "/rt"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{Channel: keeps}, c.middleware)
			for _, name := range []string{"h", "h한국", "ha+b%c", "h;x"} {
				w, _, err := s.tryDial(c.base+"/channel/"+url.PathEscape(name)+"/", nil)
				require.NoError(t, err)
				a := s.do("POST", c.base+"/v1/channel/"+url.PathEscape(name)+"/publish", `{"header":"x","body":1}`)
				require.Equal(t, 200, a.status, a.body)
				w.want("x", `1`)
				a = s.do("GET", c.base+"/v1/channel/"+url.PathEscape(name), "")
				require.Equal(t, name, a.json["data"].(map[string]any)["channel_name"])
			}
			s.do("GET", c.base+"/channel/a%2Fb/", "", "Accept", "text/event-stream").wantFail(t, 400, "bad_channel")
			s.do("GET", c.base+"/v1/channel/a%2Fhistory", "").wantFail(t, 400, "bad_channel")
			s.do("GET", c.base+"/nothing", "").wantFail(t, 404, "not_found")
			s.do("GET", c.base+"/readyz", "").wantOK(t, `{"status":"ok"}`)
		})
	}
}

func TestHTTPOrigins(t *testing.T) {
	const own, ownOtherScheme = "http://HOST", "https://HOST"
	type row struct {
		origin  string
		allowed bool
	}
	for name, c := range map[string]struct {
		allowed     []string
		credentials bool
		rows        []row
	}{
		"only the own": {nil, true, []row{
			{own, true}, {ownOtherScheme, true}, {"http://127.0.0.1", false}, {"http://127.0.0.1:1", false},
			{"https://evil.example", false}, {"null", false}, {"file://", false}, {"HOST", false}, {"http://x@", false}, {":", false},
			{"http://HOST.evil.example", false},
		}},
		"exact": {[]string{"https://app.example.com", "https://with.example:8443"}, true, []row{
			{own, true}, {"https://app.example.com", true}, {"https://APP.example.COM", true}, {"HTTPS://app.example.com", true},
			{"http://app.example.com", false}, {"https://app.example.com:8443", false}, {"https://a.app.example.com", false},
			{"https://app.example.com.evil.example", false}, {"https://evilapp.example.com", false}, {"https://example.com", false},
			{"https://with.example:8443", true}, {"https://with.example", false}, {"https://with.example:8444", false}, {"null", false},
		}},
		"any subdomain": {[]string{"https://*.example.com"}, true, []row{
			{"https://a.example.com", true}, {"https://a.b.example.com", true}, {"https://A.Example.com", true},
			{"https://example.com", false}, {"https://.example.com", false}, {"https://evilexample.com", false}, {"https://evil-example.com", false},
			{"http://a.example.com", false}, {"https://a.example.com:444", false}, {"https://a.example.com.evil.example", false}, {"null", false},
		}},
		"any subdomain, on a port": {[]string{"http://*.dev.localhost:3000"}, true, []row{
			{"http://a.dev.localhost:3000", true}, {"http://a.dev.localhost:3001", false}, {"http://a.dev.localhost", false}, {"http://dev.localhost:3000", false},
		}},
		"every website": {[]string{"*"}, false, []row{
			{own, true}, {"https://evil.example", true}, {"http://localhost:1", true}, {"null", true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{AllowedOrigins: c.allowed})
			host := strings.TrimPrefix(s.http.URL, "http://")
			for _, r := range c.rows {
				origin := strings.ReplaceAll(r.origin, "HOST", host)
				t.Run(r.origin, func(t *testing.T) {
					simple := s.do("POST", "/v1/channel/a/publish", `{"header":"x","body":1}`, "Origin", origin)
					preflight := s.do("OPTIONS", "/v1/channel/a/publish", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "idempotency-key")
					get := s.do("GET", "/v1/channel", "", "Origin", origin)
					wrong := s.do("POST", "/v1/channel/a/publish", `{}`, "Origin", origin)
					w, resp, err := s.tryDial("/channel/a/", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
					for _, a := range []answer{simple, preflight, get, wrong} {
						require.Contains(t, a.header.Values("Vary"), "Origin", "or a cache gives one website's answer to another")
					}
					if !r.allowed {
						for _, a := range []answer{simple, preflight, get, wrong} {
							a.wantFail(t, 403, "bad_origin")
							require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
							require.Empty(t, a.header.Get("Access-Control-Allow-Methods"))
						}
						require.Error(t, err)
						require.Equal(t, 403, resp.StatusCode)
						return
					}
					require.NoError(t, err)
					w.c.CloseNow()
					require.Equal(t, 200, simple.status)
					require.Equal(t, 204, preflight.status)
					require.Equal(t, 200, get.status)
					wrong.wantFail(t, 400, "bad_message") // which a page's script may read too
					for _, a := range []answer{simple, preflight, get, wrong} {
						require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
						want := ""
						if c.credentials {
							want = "true"
						}
						require.Equal(t, want, a.header.Get("Access-Control-Allow-Credentials"))
					}
					require.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "POST")
					for _, h := range []string{"Authorization", "Content-Type", "Idempotency-Key"} {
						require.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), h)
					}
					require.NotEmpty(t, preflight.header.Get("Access-Control-Max-Age"))
					require.Empty(t, simple.header.Get("Access-Control-Allow-Methods"), "only a preflight asks for it")
				})
			}
		})
	}
}

func TestHTTPSecFetchSite(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, c := range []struct {
		site, origin string
		get, post    int
	}{
		{"", "", 200, 200},                                   // no browser
		{"none", "", 200, 200},                               // typed by the user
		{"same-origin", "", 200, 200},                        //
		{"same-origin", "https://app.example.com", 200, 200}, // a proxy has rewritten the Host
		{"same-site", "", 200, 403},
		{"cross-site", "", 200, 403}, // a link and a form of another website
		{"cross-site", "https://evil.example", 403, 403},
		{"same-site", "https://evil.example", 403, 403},
		{"none", "https://evil.example", 403, 403},
		{"nonsense", "", 200, 403},
	} {
		t.Run(c.site+" "+c.origin, func(t *testing.T) {
			var header []string
			if c.site != "" {
				header = append(header, "Sec-Fetch-Site", c.site)
			}
			if c.origin != "" {
				header = append(header, "Origin", c.origin)
			}
			get := s.do("GET", "/v1/channel", "", header...)
			post := s.do("POST", "/v1/channel/a/publish", `{"header":"x","body":1}`, header...)
			require.Equal(t, c.get, get.status)
			require.Equal(t, c.post, post.status)
			if c.post == 403 {
				post.wantFail(t, 403, "bad_origin")
			}
		})
	}
}

// A request whose body ends early is refused, not taken for what has come.
func TestHTTPBodyThatEndsEarly(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	c := s.dialRaw()
	body := `{"header":"x","body":1}`
	fmt.Fprintf(c.c, "POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	c.closeWrite()
	if resp, err := c.response(); err == nil { // or the server hangs up
		b, _ := io.ReadAll(resp.Body)
		require.Equal(t, 400, resp.StatusCode, "%s", b)
	}
	c = s.dialRaw()
	a := c.ask("POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n" + body + "\r\nnonsense\r\n")
	a.wantFail(t, 400, "bad_json")
	s.publish("a", "only", `1`)
	w.want("only", `1`)
}

// Chunks, and a client that waits for "100 Continue", as curl does.
func TestHTTPBodyInChunks(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	c := s.dialRaw()
	fmt.Fprint(c.c, "POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := c.response()
	require.NoError(t, err)
	require.Equal(t, 100, resp.StatusCode)
	body := `{"header":"x","body":"` + long(5000) + `"}`
	for b := []byte(body); len(b) > 0; {
		n := min(len(b), 999)
		fmt.Fprintf(c.c, "%x\r\n%s\r\n", n, b[:n])
		b = b[n:]
	}
	c.ask("0\r\n\r\n").wantOK(t, `{"status":"ok"}`)
	w.want("x", `"`+long(5000)+`"`)
}
