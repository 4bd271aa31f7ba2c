package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

func TestHTTPList(t *testing.T) {
	t.Run("empty", func(t *testing.T) {
		s := serve(t, channels.Options{})
		s.get("/v1/channel").wantOK(t, `{"data":[],"next":""}`)
		s.get("/v1/channel?prefix=none").wantOK(t, `{"data":[],"next":""}`)
	})
	t.Run("rows", func(t *testing.T) {
		s := serve(t, channels.Options{})
		s.join("b", "")
		s.join("b", "")
		s.join("a", "")
		s.publish("a", "x", `1`)
		s.publish("c", "x", `1`)
		s.publish("c", "x", `2`)
		s.get("/v1/channel").wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0},{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		a := s.get("/v1/channel?limit=2")
		next, _ := a.json["next"].(string)
		require.NotEmpty(t, next)
		a.wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0}],"next":"`+next+`"}`)
		s.get("/v1/channel?limit=2&cursor="+next).wantOK(t, `{"data":[{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		s.get("/v1/channel?limit=3").wantOK(t, `{"data":[{"channel_name":"a","cnt":1,"rpm":1},{"channel_name":"b","cnt":2,"rpm":0},{"channel_name":"c","cnt":0,"rpm":2}],"next":""}`)
		s.get("/v1/channel?prefix=b&_=123").wantOK(t, `{"data":[{"channel_name":"b","cnt":2,"rpm":0}],"next":""}`)
	})

	s := serve(t, channels.Options{})
	for _, query := range []string{
		"limit=0", "limit=-1", "limit=1001", "limit=x", "limit=1e2", "limit=1.0", "limit=99999999999999999999", "limit=1&limit=2",
		"prefix=a/b", "prefix=a%20b", "prefix=%FF", "prefix=%zz", "prefix=a;limit=1", "prefix=" + long(201),
		"cursor=!", "cursor=YQ==", "cursor=a&cursor=b",
		"cursor=Lw", // "/", no channel's name
		"limits=1",
	} {
		t.Run(query[:min(len(query), 30)], func(t *testing.T) {
			s.get("/v1/channel?"+query).wantFail(t, 400, "bad_query")
		})
	}
	for _, query := range []string{"limit=1", "limit=1000", "limit=", "prefix=", "cursor=", "prefix=.", "prefix=..", "prefix=" + long(200), "_=1&_=2"} {
		require.Equal(t, 200, s.get("/v1/channel?"+query).status, query)
	}
}

// The pages of the list are complete and name no channel twice, even while other
// channels come and go.
func TestHTTPListPages(t *testing.T) {
	s := serve(t, channels.Options{})
	var names []string
	for i := range 3000 {
		// Names that sort in another order than they were made, some of them
		// prefixes of others, some beyond ASCII.
		name := fmt.Sprintf("%s%d", []string{"room.", "user:", "한국-", "room"}[i%4], i*7919%3000)
		names = append(names, name)
		subscription(t, s.hub, name, nil) // what was only published would leave the list after a minute
	}
	slices.Sort(names)
	names = slices.Compact(names)

	t.Cleanup(repeatedly(func(i int) {
		s.hub.Publish(context.Background(), fmt.Sprintf("room.late%d", i%500), msg("a", "1"))
	}))

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
	require.Len(t, s.get("/v1/channel").json["data"], 100, "without a limit")
}

// rpm counts each message of the last minute once, whoever published it.
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
	publish(t, s.hub, "h", "go", "1")
	for range 3 {
		s.post("/v1/channel/h/publish", `{"header":"key","body":1}`, "Idempotency-Key", "k")
	}
	s.post("/v1/channel/h/publish", `{"header":"no","body":1}`).wantFail(t, 403, "forbidden")
	s.post("/v1/channel/h/publish", `{"header":"","body":1}`).wantFail(t, 400, "bad_message")
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
	s.get("/v1/channel").wantOK(t, `{"data":[{"channel_name":"quiet","cnt":3,"rpm":0}],"next":""}`)
	a.c.Close(websocket.StatusNormalClosure, "")
	until(t, "two are left", func() bool { n, _ := s.numbers("quiet"); return n == 2 })
	b.c.CloseNow()
	e.close()
	until(t, "the list is empty", func() bool { return strings.HasPrefix(s.get("/v1/channel").body, `{"data":[]`) })
	// The hub forgets the channel, so that its name takes no memory.
	until(t, "the channel is freed", func() bool { return s.hub.Stats().Channels == 0 })
}

func TestHTTPOneChannel(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	t.Run("unknown", func(t *testing.T) {
		s.get("/v1/channel/x").wantOK(t, `{"data":{"channel_name":"x","cnt":0,"rpm":0}}`)
		s.get("/v1/channel/h0").wantOK(t, `{"data":{"channel_name":"h0","cnt":0,"rpm":0}}`)
	})
	t.Run("without history", func(t *testing.T) {
		s.join("a", "")
		s.publish("a", "x", `1`)
		s.get("/v1/channel/a").wantOK(t, `{"data":{"channel_name":"a","cnt":1,"rpm":1}}`)
	})
	t.Run("with history", func(t *testing.T) {
		var last answer
		for range 7 {
			last = s.publish("h", "x", `1`)
		}
		s.get("/v1/channel/h").wantOK(t, fmt.Sprintf(`{"data":{"channel_name":"h","cnt":0,"rpm":7,"offset":7,"epoch":%q,"first":3}}`, last.json["epoch"]))
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
		a := s.get("/v1/channel/h/history?limit=1")
		row := a.json["data"].([]any)[0].(map[string]any)
		at, err := time.Parse(time.RFC3339, row["time"].(string))
		require.NoError(t, err)
		require.WithinRange(t, at, before, time.Now().Add(time.Second))
		a.wantOK(t, fmt.Sprintf(`{"data":[{"header":"x","body":7,"offset":7,"epoch":%q,"time":%q}],"offset":7,"epoch":%[1]q,"first":3,"missed":false}`, epoch, row["time"]))
	})
	t.Run("none yet", func(t *testing.T) {
		s.get("/v1/channel/h0/history").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":false}`)
		s.get("/v1/channel/h0/history?since=:0").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":false}`)
		s.get("/v1/channel/h0/history?since=old:3").wantOK(t, `{"data":[],"offset":0,"epoch":"","first":0,"missed":true}`)
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
			a := s.get("/v1/channel/h/history?" + query)
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
			s.get("/v1/channel/h/history?"+query).wantFail(t, 400, "bad_query")
		})
	}
	s.get("/v1/channel/plain/history").wantFail(t, 400, "no_history")
}

func TestHTTPPresence(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps, ReplicaID: "n1"}, asUser)
	s.get("/v1/channel/p/presence").wantOK(t, `{"data":[],"cnt":0}`)
	a := s.joinAs("p", "X-User", "ann")
	s.joinAs("p", "X-User", "ann") // two connections of one user are two members
	s.joinAs("p")
	e := s.stream("p", "", "X-User", "bob")
	subscription(t, s.hub, "p", nil) // Go code is no member

	members := func(query string) (users []string, ids []string, cnt int) {
		got := s.get("/v1/channel/p/presence" + query)
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

	s.get("/v1/channel/a/presence").wantFail(t, 400, "no_presence")
	for _, q := range []string{"limit=0", "limit=-1", "limit=10001", "limit=x", "limit=1&limit=1"} {
		s.get("/v1/channel/p/presence?"+q).wantFail(t, 400, "bad_query")
	}
}

// An app should give JSON in UTF-8 as Identity.Info. If it does not for one user, that
// one is refused at the handshake, and the presence of all others is still readable.
func TestHTTPPresenceWithInfoThatIsNoJSON(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps}, whoIs(func(r *http.Request) channels.Identity {
		return channels.Identity{ID: "u", Info: json.RawMessage(r.Header.Get("X-Info"))}
	}))
	s.joinAs("p", "X-Info", `{"ok":1}`)
	for _, info := range []string{"{broken", "\"M\xfcller\""} {
		for _, path := range []string{"/channel/p/", "/channel/c/"} {
			s.handshake(path, "X-Info: "+info).wantFail(t, 500, "internal")
		}
	}
	require.Equal(t, 4, strings.Count(s.log.String(), "Identity.Info is not JSON in UTF-8"))
	require.Equal(t, 1.0, s.get("/v1/channel/p/presence").json["cnt"])
}

// Of more than a thousand channels that are busy, a second's report has a part. Who reads
// the list here gets all.
func TestBusyChannelsTakeTurns(t *testing.T) {
	const n, part = 6000, 1200
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		hub := newHub(t, channels.Options{Logger: quiet, Store: m})
		begin := time.Now()
		round := func() {
			for i := range n {
				publish(t, hub, fmt.Sprintf("c%04d", i), "x", "1")
			}
		}
		at := func(seconds int) {
			settle(time.Until(begin.Add(time.Duration(seconds)*time.Second + 500*time.Millisecond)))
		}
		reported := func(publishes int) (channels int) { // in the Store, as others see it
			for after := "c"; ; {
				page, err := m.Channels(t.Context(), "c", after, 1000)
				require.NoError(t, err)
				for _, c := range page {
					require.LessOrEqual(t, c.Publishes, publishes)
					if after = c.Channel; c.Publishes == publishes {
						channels++
					}
				}
				if len(page) == 0 {
					return channels
				}
			}
		}
		round()
		at(1)
		require.Equal(t, n, reported(1), "channels that are new in the list do not wait")
		round()
		for turn := range n / part {
			at(2 + turn)
			require.Equal(t, (turn+1)*part, reported(2))
		}
		round()
		require.Zero(t, reported(3))
		_, err := hub.Channels(t.Context(), channels.ChannelsQuery{})
		require.NoError(t, err)
		require.Equal(t, n, reported(3))
		round()
		sub := subscription(t, hub, "c5999", nil)
		at(7)
		c, err := m.Channel(t.Context(), "c5999")
		require.NoError(t, err)
		require.Equal(t, store.Count{Channel: "c5999", Subscribers: 1, Publishes: 4}, c, "nor does a subscriber")
		require.Equal(t, part+1, reported(4))
		sub.Close()
		at(80)
		require.Zero(t, reported(0), "all have left the list")
		require.Zero(t, hub.Stats().Channels, "nothing needs them any more")
	})
}

// The list shows how many messages the last 60 seconds had.
func TestPublishesSlideOutOfTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Logger: quiet})
		begin := time.Now()
		at := func(seconds int, want int) {
			t.Helper()
			settle(time.Until(begin.Add(time.Duration(seconds)*time.Second + 500*time.Millisecond)))
			c, err := hub.Channel(t.Context(), "c")
			require.NoError(t, err)
			require.Equal(t, want, c.Publishes, "after %d s", seconds)
		}
		publish(t, hub, "c", "x", "1")
		at(29, 1)
		publish(t, hub, "c", "x", "1")
		publish(t, hub, "c", "x", "1")
		at(58, 3)
		at(61, 2)
		at(87, 2)
		at(91, 0)
		require.Zero(t, hub.Stats().Channels, "nothing needs it any more")

		// Many in one second are counted, too, and then few again, in a channel that stays.
		defer subscription(t, hub, "c", nil).Close()
		begin = begin.Add(100 * time.Second)
		settle(time.Until(begin))
		publish(t, hub, "c", "x", "1")
		at(10, 1)
		for range 300 {
			publish(t, hub, "c", "x", "1")
		}
		at(11, 301)
		publish(t, hub, "c", "x", "1")
		at(61, 301)
		at(69, 301)
		at(70, 1)
		at(72, 0)
		publish(t, hub, "c", "x", "1")
		for second := 73; second < 132; second++ {
			at(second, 1)
		}
		at(133, 0)
	})
}
