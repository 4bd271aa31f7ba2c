package channels_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
)

// comes wants a message of a channel next.
func (e *sseClient) comes(channel, header, body string) sseEvent {
	e.t.Helper()
	ev := e.want(header, body)
	require.Equal(e.t, channel, ev.message().Channel)
	return ev
}

func TestEventsOfSeveralChannels(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	e := s.events("?channel=h1&channel=plain&channel=h2")
	require.Equal(t, "text/event-stream; charset=utf-8", e.resp.Header.Get("Content-Type"))
	require.Equal(t, "no-store, no-transform", e.resp.Header.Get("Cache-Control"))
	require.Equal(t, "no", e.resp.Header.Get("X-Accel-Buffering"))
	begin, err := e.read()
	require.NoError(t, err)
	require.NotEmpty(t, begin.id, "where it begins")
	require.Equal(t, sseEvent{id: begin.id, lines: 1}, begin)
	require.EqualValues(t, 1, s.hub.Stats().Connections)

	s.publish("h1", "x", `1`)
	s.publish("plain", "x", "\"\u2028\"")
	s.publish("h2", "x", `3`)
	first := e.comes("h1", "x", `1`)
	m := first.message()
	require.EqualValues(t, 1, m.Offset)
	require.NotZero(t, m.Time)
	require.NotEqual(t, begin.id, first.id)
	ev := e.comes("plain", "x", `"\u2028"`)
	require.Equal(t, sseEvent{data: `{"channel":"plain","header":"x","body":"\u2028"}`, lines: 1}, ev, "no id, since it has no position")
	last := e.comes("h2", "x", `3`)
	e.close()
	s.publish("h1", "x", `4`)

	for name, c := range map[string]struct {
		id   string
		want map[string]string // what comes of each channel
	}{
		"from the beginning": {begin.id, map[string]string{"h1": "1 4", "h2": "3"}},
		"in between":         {first.id, map[string]string{"h1": "4", "h2": "3"}},
		"at the end":         {last.id, map[string]string{"h1": "4"}},
	} {
		t.Run(name, func(t *testing.T) {
			// The order of the channels does not matter.
			for _, query := range []string{"?channel=h1&channel=plain&channel=h2", "?channel=h2&channel=h1&channel=plain"} {
				for _, e := range []*sseClient{s.events(query, "Last-Event-ID", c.id), s.events(query + "&since=" + url.QueryEscape(c.id)), s.events(query+"&since=x", "Last-Event-ID", c.id)} {
					publishWith(t, s.hub, "plain", msg("live", "0"), channels.PublishOptions{Local: true})
					got := map[string]string{}
					for {
						m := e.next().message()
						if m.Header == "live" {
							break
						}
						got[m.Channel] = strings.TrimPrefix(got[m.Channel]+" "+string(m.Body), " ")
					}
					e.close()
					require.Equal(t, c.want, got)
				}
			}
		})
	}
	t.Run("the newest", func(t *testing.T) {
		e := s.events("?channel=h1&channel=plain&channel=h2&last=1")
		defer e.close()
		got := map[string]string{}
		for range 2 {
			m := e.next().message()
			got[m.Channel] = string(m.Body)
		}
		require.Equal(t, map[string]string{"h1": "4", "h2": "3"}, got)
	})
}

// Whatever id a client brings, it gets the messages of its channels or a reset for each:
// an id says nothing about other channels.
func TestEventsAfterAForeignID(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	s.publish("h1", "x", `1`)
	s.publish("h2", "x", `1`)
	e := s.events("?channel=h1&channel=h3")
	ev, err := e.read()
	require.NoError(t, err)
	e.close()
	for _, id := range []string{ev.id, "x", "1:AAAAAAAA:", long(5000)} {
		e := s.events("?channel=h1&channel=h2&channel=plain", "Last-Event-ID", id)
		begin, err := e.read()
		require.NoError(t, err)
		reset := map[string]string{}
		var last sseEvent
		for range 2 {
			last = e.next()
			m := last.message()
			require.Equal(t, "reset", m.Header)
			require.EqualValues(t, 1, m.Offset)
			reset[m.Channel] = string(m.Body)
		}
		require.Equal(t, map[string]string{"h1": `{"reason":"epoch"}`, "h2": `{"reason":"epoch"}`}, reset)
		e.close()
		e = s.events("?channel=h1&channel=h2&channel=plain", "Last-Event-ID", begin.id)
		require.Equal(t, "reset", e.next().header(), "a client that was cut before the reset gets it again")
		e.close()
		e = s.events("?channel=h1&channel=h2&channel=plain", "Last-Event-ID", last.id)
		s.publish("plain", "x", `2`)
		e.comes("plain", "x", `2`)
		e.close()
	}
	s.getStream("/v1/events?channel=h1&channel=h2&since="+url.QueryEscape(ev.id)).wantFail(t, 400, "bad_query")
}

func TestEventsByName(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	e := s.events("?channel=h1&channel=h2&format=event")
	begin, err := e.read()
	require.NoError(t, err)
	publish(t, s.hub, "h1", "card", string(channels.HTML("<p>1</p>\n<p>2</p>")))
	ev := e.next()
	require.Equal(t, sseEvent{id: ev.id, event: "card", data: "<p>1</p>\n<p>2</p>", lines: 4}, ev)
	require.NotEmpty(t, ev.id)
	e.close()
	e = s.events("?channel=h1&channel=h2&format=event", "Last-Event-ID", begin.id)
	require.Equal(t, ev, e.next())
	e.close()
}

func TestEventsOfAPattern(t *testing.T) {
	asked := new(lines)
	s := serve(t, channels.Options{Channel: keeps, Authorize: func(_ context.Context, r channels.Request) error {
		asked.add("%s %v", r.Channel, r.Pattern)
		return nil
	}})
	e := s.events("?pattern=chat.*&channel=h1&pattern=h?")
	require.Equal(t, []string{"h1 false", "chat.* true", "h? true"}, asked.take())
	s.publish("chat.a", "x", `1`)
	ev := e.comes("chat.a", "x", `1`)
	require.Empty(t, ev.id)
	s.publish("h1", "x", `2`)
	ids := 0
	for range 2 { // one for each subscription
		if ev := e.comes("h1", "x", `2`); ev.id != "" {
			ids++
		}
	}
	require.Equal(t, 1, ids, "a pattern's messages have no position")
	e.close()
	until(t, "the patterns are gone", func() bool { return s.hub.Stats().Patterns == 0 })
}

func TestEventsThatAreRefused(t *testing.T) {
	down := channels.ErrStoreUnavailable
	s := serve(t, channels.Options{Authorize: func(_ context.Context, r channels.Request) error {
		switch {
		case r.Action != channels.ActionSubscribe:
		case r.Channel[0] == 'n':
			return errors.New("no")
		case r.Channel[0] == 'd':
			return down
		case r.Channel[0] == 'o':
			return &channels.Error{Code: "own", Status: 402, Message: "pay"}
		}
		return nil
	}})
	e := s.events("?channel=a&channel=n&channel=own&pattern=n*")
	m := e.next().message()
	require.Equal(t, "error", m.Header)
	require.Empty(t, m.Channel)
	require.JSONEq(t, `{"code":"forbidden","msg":"channels refused: 3; the others go on","channels":[
		{"channel":"n","code":"forbidden","msg":"`+channels.ErrForbidden.Message+`"},{"channel":"own","code":"own","msg":"pay"},
		{"channel":"n*","code":"forbidden","msg":"`+channels.ErrForbidden.Message+`"}]}`, string(m.Body))
	s.publish("n", "x", `1`)
	s.publish("own", "x", `1`)
	s.publish("a", "x", `2`)
	e.comes("a", "x", `2`)
	e.close()
	require.Equal(t, "error", s.events("?channel=a&channel=n&format=event").next().event)

	s.getStream("/v1/events?channel=n&pattern=n*").wantFail(t, 403, "forbidden")
	s.openEvents("/v1/events?channel=n&channel=down").wantRefused(down.Code)
	until(t, "nobody is left of those", func() bool { n, _ := s.numbers("a"); return n == 1 && s.hub.Stats().Connections == 1 })
}

// A channel that is refused for a reason that passes is asked for again, since the stream
// ends soon and its client comes back.
func TestEventsAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{StreamTime: -1, Authorize: func(_ context.Context, r channels.Request) error {
			if r.Channel == "down" {
				return channels.ErrStoreUnavailable
			}
			return nil
		}})
		for query, want := range map[string]bool{"?channel=a&channel=down": true, "?channel=a&channel=b": false} {
			ctx, cancel := context.WithCancel(t.Context())
			r, w := io.Pipe()
			go io.Copy(io.Discard, r) // ends with w
			began := time.Now()
			done := serveStream(ctx, hub, &streamWriter{w: w}, "/v1/events"+query)
			over := false
			select {
			case <-done:
				over = true
				require.WithinRange(t, time.Now(), began.Add(10*time.Second), began.Add(20*time.Second))
			case <-time.After(time.Minute):
			}
			require.Equal(t, want, over, query)
			cancel()
			if !over {
				<-done
			}
			w.Close()
		}
	})
}

// A channel that is refused for a while keeps its place in the stream's id: with the
// streams after that, the client misses nothing of it.
func TestEventsGoOnInAChannelThatWasRefused(t *testing.T) {
	var down atomic.Bool
	s := serve(t, channels.Options{Channel: keeps, Authorize: func(_ context.Context, r channels.Request) error {
		if down.Load() && r.Action == channels.ActionSubscribe && r.Channel == "h2" {
			return channels.ErrStoreUnavailable
		}
		return nil
	}})
	begins := func(query string, header ...string) string {
		e := s.events("?channel=h1&channel=h2"+query, header...)
		defer e.close()
		begin, err := e.read()
		require.NoError(t, err)
		if down.Load() {
			require.Equal(t, "error", e.next().header())
		}
		return begin.id
	}
	goesOn := func(id string) sseEvent {
		e := s.events("?channel=h1&channel=h2&last=1", "Last-Event-ID", id)
		defer e.close()
		return e.next()
	}
	id := begins("")
	s.publish("h2", "x", `1`)
	s.publish("h2", "x", `2`)
	down.Store(true)
	been := begins("", "Last-Event-ID", begins("", "Last-Event-ID", id))
	lost := begins("", "Last-Event-ID", "x")
	never := begins("&last=1")
	down.Store(false)
	require.Equal(t, "1", string(goesOn(been).message().Body))
	require.Equal(t, "2", string(goesOn(never).message().Body), "the newest, since the client has not been there")
	require.Equal(t, "reset", goesOn(lost).header())
}

func TestEventsQuery(t *testing.T) {
	s := serve(t, channels.Options{MaxSubscriptions: 3})
	for query, code := range map[string]string{
		"":                       "bad_query",
		"?last=1":                "bad_query",
		"?channel=":              "bad_channel",
		"?channel=a%20b":         "bad_channel",
		"?channel=a*":            "bad_channel",
		"?pattern=":              "bad_channel",
		"?pattern=a":             "bad_query",
		"?pattern=[a":            "bad_channel",
		"?channel=a&channel=a":   "bad_query",
		"?pattern=a*&pattern=a*": "bad_query",
		"?channel=a&pattern=*&channel=b&channel=c": "bad_query",
		"?channel=a&last=x":                        "bad_query",
		"?channel=a&last=1001":                     "bad_query",
		"?channel=a&last=1&last=2":                 "bad_query",
		"?channel=a&since=x":                       "bad_query",
		"?channel=a&since=e:1":                     "bad_query",
		"?channel=a&format=body":                   "bad_query",
		"?channel=a&heartbeat=1":                   "bad_query",
		"?channel=a&channels=b":                    "bad_query",
		"?channel=a&since=" + url.QueryEscape(channels.PositionsID([]string{"a"}, nil)) + "&last=1": "bad_query",
	} {
		s.getStream("/v1/events"+query).wantFail(t, 400, code)
	}
	require.Zero(t, s.hub.Stats().Connects)
	many := serve(t, channels.Options{MaxSubscriptions: 1000, Channel: keeps})
	query := "?channel=h"
	for i := range 400 { // nothing was published there yet, but the ids become longer
		query += fmt.Sprintf("&channel=h%d", i)
	}
	many.getStream("/v1/events"+query).wantFail(t, 400, "bad_query")
	many.events(query[:strings.Index(query, "&channel=h300")]).close()
	s.events("?channel=a&channel=b&pattern=*&_=1&datastar=%7B%7D&last=5&heartbeat=event").close()
	for _, accept := range []string{"", "*/*", "text/html", "text/event-stream"} { // it is nothing but a stream
		s.events("?channel=a", "Accept", accept).close()
	}
	a := s.do("HEAD", "/v1/events?channel=a", "")
	require.Equal(t, 405, a.status)
	require.Equal(t, "GET, OPTIONS", a.header.Get("Allow"))
	s.post("/v1/events?channel=a", "").wantFail(t, 405, "method_not_allowed")
	s.getStream("/v1/events?channel=a", "Origin", "https://evil.example").wantFail(t, 403, "bad_origin")
	s.getStream("/v1/events?channel=a", "Referer", "https://evil.example/x").wantFail(t, 403, "bad_origin")
}

// A client that may no longer have one of its channels is told, and keeps the others.
func TestEventsThatEnd(t *testing.T) {
	left := make(departures, 4)
	s := serve(t, channels.Options{OnDisconnect: left.hook, Channel: every(channels.ChannelOptions{Presence: channels.PresenceList})}, asUser)
	e := s.events("?channel=a&channel=b&pattern=p*", "X-User", "ann")
	for _, name := range []string{"a", "b"} {
		require.EqualValues(t, 1, s.get("/v1/channel/" + name + "/presence").json["cnt"])
	}
	for i, name := range []string{"a", "p*"} {
		require.Equal(t, 1, unsubscribe(s.hub, "ann", name))
		require.Zero(t, unsubscribe(s.hub, "ann", name), "it is gone")
		m := e.next().message()
		require.Equal(t, "error", m.Header)
		require.Contains(t, string(m.Body), `"channels":[{"channel":"`+name+`","code":"unsubscribed",`, i)
	}
	require.EqualValues(t, 0, s.get("/v1/channel/a/presence").json["cnt"])
	s.publish("a", "x", `1`)
	s.publish("b", "x", `2`)
	e.comes("b", "x", `2`)
	require.Equal(t, 1, unsubscribe(s.hub, "ann", "b"))
	e.wantEnd("unsubscribed")
	require.ErrorIs(t, <-left, channels.ErrUnsubscribed)

	e = s.events("?channel=a&channel=b", "X-User", "ann")
	require.Equal(t, 1, disconnect(s.hub, "ann"))
	e.wantEnd("disconnected")
	require.ErrorIs(t, <-left, channels.ErrDisconnected)
	until(t, "no member is left", func() bool { return s.get("/v1/channel/b/presence").json["cnt"] == float64(0) })

	e = s.events("?channel=a&channel=b")
	require.NoError(t, s.hub.Drain(t.Context()))
	require.Equal(t, "reconnect", e.next().header())
	_, err := e.read()
	require.Equal(t, io.EOF, err)
	s.openEvents("/v1/events?channel=a").wantRefused("draining")
}

func TestEventsWhoseRightsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{StreamTime: -1, Authorize: func(_ context.Context, r channels.Request) error {
			if r.Channel == "short" {
				r.Until(time.Now().Add(time.Hour))
			}
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		w := timelessRecorder{httptest.NewRecorder()}
		done := serveStream(ctx, hub, w, "/v1/events?channel=short&channel=long")
		settle(59 * time.Minute)
		publish(t, hub, "short", "x", "1")
		settle(2 * time.Minute)
		publish(t, hub, "short", "x", "2")
		publish(t, hub, "long", "x", "3")
		settle(time.Second)
		cancel()
		<-done
		got := strings.ReplaceAll(w.Body.String(), ":\n", "")
		_, got, _ = strings.Cut(got, "\n")
		require.Equal(t, `data: {"channel":"short","header":"x","body":1}`+"\n\n"+
			`data: {"header":"error","body":{"code":"expired","msg":"channels refused: 1; the others go on","channels":[{"channel":"short","code":"expired","msg":"`+channels.ErrExpired.Message+`"}]}}`+"\n\n"+
			`data: {"channel":"long","header":"x","body":3}`+"\n\n", got)
	})
}

// The hooks see one connection with several subscriptions.
func TestEventsCallHooks(t *testing.T) {
	hooks := new(lines)
	s := serve(t, channels.Options{
		OnConnect:    func(_ context.Context, c channels.Client) error { hooks.add("connect %s", c.Transport); return nil },
		OnSubscribe:  func(_ context.Context, _ channels.Client, channel string) { hooks.add("subscribe %s", channel) },
		OnDisconnect: func(channels.Client, error) { hooks.add("disconnect") },
	})
	e := s.events("?channel=b&channel=a&pattern=c*")
	s.publish("a", "x", `1`)
	e.comes("a", "x", `1`)
	require.Equal(t, []string{"connect sse", "subscribe b", "subscribe a", "subscribe c*"}, hooks.take())
	e.close()
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	until(t, "the hook was called", func() bool { return fmt.Sprint(hooks.take()) == "[disconnect]" })

	s = serve(t, channels.Options{OnConnect: func(context.Context, channels.Client) error { return errors.New("no") }})
	s.getStream("/v1/events?channel=a&pattern=b*").wantFail(t, 403, "forbidden")
	require.Zero(t, s.hub.Stats().Patterns)
}

func TestEventsHeartbeat(t *testing.T) {
	s := serve(t, channels.Options{PingPeriod: time.Second})
	for query, want := range map[string]string{"": `{"header":"ping","body":{"every_ms":1000}}`, "&format=event": `{"every_ms":1000}`} {
		e := s.events("?channel=a&channel=b&heartbeat=event" + query)
		require.Equal(t, sseEvent{event: "ping", data: want, lines: 2}, e.next())
		e.close()
	}
}

// A stream goes on at another replica, with the same id.
func TestEventsGoOnElsewhere(t *testing.T) {
	net, st := meshtest.NewNetwork(1), newMemory(t)
	at := func(id string) *server {
		m := net.Join(id)
		t.Cleanup(func() { m.Close() })
		return serve(t, channels.Options{ReplicaID: id, Mesh: m, Store: st, Channel: keeps})
	}
	a, b := at("a"), at("b")
	e := a.events("?channel=h1&channel=h2")
	b.publish("h1", "x", `1`)
	id := e.comes("h1", "x", `1`).id
	e.close()
	a.publish("h2", "x", `2`)
	e = b.events("?channel=h1&channel=h2", "Last-Event-ID", id)
	e.comes("h2", "x", `2`)
	a.publish("h1", "x", `3`)
	e.comes("h1", "x", `3`)
	e.close()
}
