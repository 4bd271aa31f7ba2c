package channels_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

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
			a := s.post("/v1/channel/plain/publish", `{"header":"a","body":1}`, "Content-Type", typ)
			a.wantOK(t, `{"status":"ok"}`)
		}
	})
	s.publish("nobody", "a", `1`).wantOK(t, `{"status":"ok"}`)
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
		a := s.post("/v1/publish", `{"channels":["one","two"],"header":"x","body":{"a":null}}`)
		a.wantOK(t, `{"status":"ok","results":[{"status":"ok","channel":"one"},{"status":"ok","channel":"two"}]}`)
		one.want("x", `{"a":null}`)
		two.want("x", `{"a":null}`)
	})
	t.Run("one message to many channels, some of which refuse", func(t *testing.T) {
		a := s.post("/v1/publish", `{"channels":["one","a/b","locked","","two"],"header":"y","body":1}`)
		require.Equal(t, 200, a.status)
		require.Equal(t, "fail", a.json["status"])
		require.Equal(t, []string{"one ok", "a/b bad_channel", "locked locked", " bad_channel", "two ok"}, outcomes(t, a))
		one.want("y", `1`)
		two.want("y", `1`)
	})
	t.Run("many messages, some of which are wrong", func(t *testing.T) {
		a := s.post("/v1/publish", `{"messages":[
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
			return s.post("/v1/publish", `{"channels":["h1","h2"],"header":"x","body":1,"idempotency_key":"z"}`)
		}
		first := send()
		require.Equal(t, "ok", first.json["status"], first.body)
		require.Equal(t, strings.ReplaceAll(first.body, `"}`, `","duplicate":true}`), send().body)
	})

	many := func(n int) string {
		return `{"channels":[` + strings.TrimSuffix(strings.Repeat(`"c",`, n), ",") + `],"header":"x","body":1}`
	}
	t.Run("1000 at a time", func(t *testing.T) {
		a := s.post("/v1/publish", many(1000))
		require.Equal(t, "ok", a.json["status"])
		require.Len(t, a.json["results"], 1000)
		_, rpm := s.numbers("c")
		require.Equal(t, 1000, rpm)
	})
	for name, c := range map[string]struct {
		body, code string
		status     int
	}{
		"nothing":                 {``, "bad_json", 400},
		"broken":                  {`{"channels":`, "bad_json", 400},
		"wrong UTF-8":             {"{\"channels\":[\"\xff\"]}", "bad_utf8", 400},
		"an array":                {`[]`, "bad_message", 400},
		"null":                    {`null`, "bad_message", 400},
		"neither form":            {`{}`, "bad_message", 400},
		"no channels":             {`{"channels":[],"header":"a","body":1}`, "bad_message", 400},
		"no messages":             {`{"messages":[]}`, "bad_message", 400},
		"only one channel":        {`{"channel":"one","header":"a","body":1}`, "bad_message", 400},
		"both forms":              {`{"messages":[{"channel":"one","header":"a","body":1}],"channels":["two"]}`, "bad_message", 400},
		"messages and a body":     {`{"messages":[{"channel":"one","header":"a","body":1}],"body":1}`, "bad_message", 400},
		"channels of wrong type":  {`{"channels":"one","header":"a","body":1}`, "bad_message", 400},
		"numbers for channels":    {`{"channels":[1],"header":"a","body":1}`, "bad_message", 400},
		"messages of wrong type":  {`{"messages":{}}`, "bad_message", 400},
		"numbers for messages":    {`{"messages":[1]}`, "bad_message", 400},
		"too many":                {many(1001), "too_large", 413},
		"longer than any request": {`{"x":"` + strings.Repeat("x", 3<<20) + `"}`, "too_large", 413},
	} {
		t.Run(name, func(t *testing.T) {
			s.post("/v1/publish", c.body).wantFail(t, c.status, c.code)
		})
	}
	// Nothing of what was refused has reached anybody.
	s.publish("one", "last", `0`)
	one.want("last", `0`)
}

// toChannels is a batch of one message for n channels, whose names begin with prefix.
func toChannels(prefix string, n int, body string) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%q", prefix+strconv.Itoa(i))
	}
	return `{"channels":[` + strings.Join(names, ",") + `],"header":"h","body":` + body + `}`
}

// outcomes lists "channel code" for each result of a batch.
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

func keysOf(v any) []string { return slices.Collect(maps.Keys(v.(map[string]any))) }

// A request for many channels is one publish for each. What the hook changes in one
// must not show in the others.
func TestHTTPPublishManyGivesEachHookItsOwnBody(t *testing.T) {
	var seen lines
	s := serve(t, channels.Options{OnPublish: func(_ context.Context, p *channels.Publication) error {
		seen.add("%s", p.Message.Body)
		copy(p.Message.Body, `"changed"`) // in place: the message is the hook's to change
		return nil
	}})
	s.post("/v1/publish", `{"channels":["a","b"],"header":"x","body":"1234567"}`).
		wantOK(t, `{"status":"ok","results":[{"status":"ok","channel":"a"},{"status":"ok","channel":"b"}]}`)
	require.Equal(t, []string{`"1234567"`, `"1234567"`}, seen.take())
}

// A POST to the path of a channel is told the path to publish on, with or without a
// body.
func TestHTTPPublishAtTheWrongPath(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, path := range []string{"/channel/a/", "/v1/channel/a"} {
		for _, body := range []string{"", `{"header":"x","body":1}`} {
			a := s.post(path, body)
			a.wantFail(t, 405, "method_not_allowed")
			require.Contains(t, a.message(), "POST to /v1/channel/NAME/publish", path)
		}
	}
	s.do("GET", "/channel/a/", "x").wantFail(t, 400, "bad_handshake")
	require.NotContains(t, s.post("/v1/nodes", "x").message(), "publish")
}

func TestHTTPIdempotencyKey(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	post := func(channel, body string, keys ...string) answer {
		var header []string
		for _, k := range keys {
			header = append(header, "Idempotency-Key", k)
		}
		return s.post("/v1/channel/"+channel+"/publish", `{"header":"x","body":`+body+`}`, header...)
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
		require.Len(t, s.get("/v1/channel/h2/history").json["data"], 1)
	})
	require.Equal(t, 200, post("h", `1`, long(200)).status, "the longest")
	post("plain", `1`, "k").wantFail(t, 400, "no_history")
	for name, keys := range map[string][]string{
		"empty": {""}, "too long": {long(201)}, "two": {"a", "b"}, "the same twice": {"a", "a"},
		"a space": {"a b"}, "a tab": {"a\tb"}, "not ASCII": {"schlüssel"},
	} {
		t.Run(name, func(t *testing.T) { post("h", `1`, keys...).wantFail(t, 400, "bad_idempotency_key") })
	}
}

// A long message to many channels is not copied for all of them at once.
func TestABatchIsNotCopiedInAdvance(t *testing.T) {
	var asked atomic.Bool
	var most atomic.Int64
	s := serve(t, channels.Options{MaxMessageBytes: 64 << 20 /* so that 40 MiB are a batch */, Authorize: func(context.Context, channels.Request) error {
		if !asked.Swap(true) {
			most.Store(heap())
		}
		return channels.ErrForbidden
	}})
	body := toChannels("c", 200, `"`+long(200<<10)+`"`)
	before := heap()
	a := s.post("/v1/publish", body)
	require.Equal(t, 200, a.status)
	require.True(t, asked.Load())
	require.Less(t, most.Load()-before, int64(16<<20), "40 MiB were copied")
}

// A refused publish is answered with its HTTP status, even if the client accepts
// an event stream.
func TestARefusedPublishIsNoStream(t *testing.T) {
	s := serve(t, channels.Options{OnPublish: func(context.Context, *channels.Publication) error { return channels.ErrStoreUnavailable }})
	s.post("/v1/channel/b/publish", `{"header":"h","body":1}`, "Accept", "text/event-stream", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin").
		wantFail(t, 503, "store_unavailable")
}

// A few hundred bytes inflate to 10,000 escaped names. To unescape and remember
// each takes far longer than to inflate them, so that there is a bound.
func TestMessagesWithManyMembersAreRefused(t *testing.T) {
	s := serve(t, channels.Options{})
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"\u0078%d":0,`, i)
		}
		return b.String()
	}
	message := func(n int) string { return "{" + members(n-2) + `"header":"h","body":1}` }
	post := func(body string) answer { return s.post("/v1/channel/a/publish", body) }
	require.Equal(t, 200, post(message(100)).status)
	post(message(101)).wantFail(t, 400, "bad_message")
	s.post("/v1/publish", "{"+members(99)+`"channels":["a"],"header":"h","body":1}`).wantFail(t, 400, "bad_message")
	a := s.post("/v1/publish", `{"messages":[{"channel":"a",`+message(101)[1:]+"]}")
	require.Contains(t, a.body, `"bad_message"`)

	ws := s.join("a", "")
	ws.send(message(101))
	require.Contains(t, string(ws.next().Body), `"bad_message"`)

	for name, c := range map[string]struct{ path, body, code string }{
		"names":            {"/v1/channel/a/publish", "{" + strings.Repeat(`"\n":0,`, 30_000) + `"header":"h","body":1}`, "bad_message"},
		"other names":      {"/v1/channel/a/publish", "{" + members(15_000) + `"header":"h","body":1}`, "bad_message"},
		"names of a batch": {"/v1/publish", "{" + strings.Repeat(`"\n":0,`, 200_000) + `"messages":[]}`, "bad_message"},
		"in a batch":       {"/v1/publish", `{"messages":[{` + members(80_000) + `"channel":"a"}]}`, "bad_message"},
	} {
		mallocs := testing.AllocsPerRun(1, func() { require.Contains(t, s.post(c.path, c.body).body, c.code, name) })
		require.Less(t, mallocs, 3_000.0, name)
	}
}

// The longest header and the longest key pass in the longest form that JSON has.
func TestTheLongestHeaderAndKeyEscaped(t *testing.T) {
	s := serve(t, channels.Options{Channel: keep(1)})
	body := func(header, key int) string {
		return `{"header":"` + strings.Repeat(`\u0061`, header) + `","body":1,"key":"` + strings.Repeat(`\u0061`, key) + `"}`
	}
	require.Equal(t, 200, s.post("/v1/channel/a/publish", body(channels.MaxHeaderBytes, 200)).status)
	s.post("/v1/channel/a/publish", body(channels.MaxHeaderBytes+1, 200)).wantFail(t, 400, "bad_message")
	s.post("/v1/channel/a/publish", body(channels.MaxHeaderBytes, 201)).wantFail(t, 400, "bad_idempotency_key")
}

// What is too long for a channel's name does not come back with each result, six
// times as long where it has to be escaped.
func TestABatchDoesNotEchoLongNames(t *testing.T) {
	s := serve(t, channels.Options{})
	a := s.post("/v1/publish", `{"channels":["a","`+strings.Repeat("<", 200<<10)+`"],"header":"h","body":1}`)
	require.Equal(t, 200, a.status)
	require.Contains(t, a.body, `"bad_channel"`)
	require.Less(t, len(a.body), 4<<10)
}
