package channels_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

func TestMessagesSayWhoPublished(t *testing.T) {
	net, st := meshtest.NewNetwork(1), newMemory(t)
	hubtest.SayWhoPublished(t, func(id string) channels.Options {
		node := net.Join(id)
		t.Cleanup(func() { node.Close() })
		return channels.Options{ReplicaID: id, Mesh: node, Store: st}
	})
}

// What an identity has too much of does not go with each message. Whatever does is the
// same live and in the history.
func TestPublishersAsMessagesCarryThem(t *testing.T) {
	long := long(channels.MaxPublisher)
	for name, c := range map[string]struct {
		id   channels.Identity
		want *channels.Publisher // without the Client; nil: none
		logs string
	}{
		"nobody":              {channels.Identity{}, &channels.Publisher{}, ""},
		"a user":              {channels.Identity{ID: "ann"}, &channels.Publisher{User: "ann"}, ""},
		"info":                {channels.Identity{Info: json.RawMessage(`[1,"ü"]`)}, &channels.Publisher{Info: json.RawMessage(`[1,"ü"]`)}, ""},
		"null":                {channels.Identity{Info: json.RawMessage(`null`)}, &channels.Publisher{Info: json.RawMessage(`null`)}, ""},
		"a user with quotes":  {channels.Identity{ID: "\"ann\"\n<\u2028>"}, &channels.Publisher{User: "\"ann\"\n<\u2028>"}, ""},
		"info on lines":       {channels.Identity{Info: json.RawMessage("{\r\n\"a\": 1\n}")}, &channels.Publisher{Info: json.RawMessage(`{"a":1}`)}, ""},
		"a long info":         {channels.Identity{ID: "ann", Info: json.RawMessage(`"` + long + `"`)}, &channels.Publisher{User: "ann"}, "Identity.Info has 2050 bytes"},
		"an info just longer": {channels.Identity{ID: "ann", Info: json.RawMessage(`"` + long[:2000] + `"`)}, &channels.Publisher{User: "ann"}, "messages carry up to 2048"},
		"a deep info": {channels.Identity{ID: "ann", Info: json.RawMessage(strings.Repeat("[", 600) + strings.Repeat("]", 600))},
			&channels.Publisher{User: "ann"}, "nests more than"},
		"a long user":            {channels.Identity{ID: long}, nil, "messages carry up to 2048"},
		"a user in Latin-1":      {channels.Identity{ID: "\xe9"}, nil, "Identity.ID is not valid UTF-8"},
		"the same with an info":  {channels.Identity{ID: "\xe9", Info: json.RawMessage(`1`)}, nil, "Identity.ID is not valid UTF-8"},
		"a long user, with info": {channels.Identity{ID: long, Info: json.RawMessage(`1`)}, nil, "messages carry up to 2048"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{Channel: keep(10)}, whoIs(func(*http.Request) channels.Identity { return c.id }))
			sub := subscription(t, s.hub, "c", nil)
			w := s.join("c", "")
			for range 2 {
				w.send(say("1"))
				got := next(t, sub).Publisher
				if c.want == nil {
					require.Nil(t, got)
				} else {
					want := *c.want
					want.Client = s.id(2)
					require.Equal(t, &want, got)
				}
				h := historyOf(t, s.hub, "c", channels.HistoryQuery{Limit: 1})
				require.Equal(t, got, h.Messages[0].Publisher)
			}
			logged := strings.Count(s.log.String(), "publisher's identity")
			if c.logs == "" {
				require.Zero(t, logged, s.log)
				return
			}
			require.Equal(t, 1, logged, "logged once, not each time")
			require.Contains(t, s.log.String(), c.logs)
		})
	}
}

// noPublishers are infos that no hub of this version has made.
var noPublishers = map[string][]byte{
	"none":                     nil,
	"the trace of a version":   []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
	"no JSON":                  []byte(`{"client":"c"`),
	"more than one":            []byte(`{"client":"c"}{}`),
	"Latin-1":                  []byte("{\"client\":\"\xe9\"}"),
	"too long":                 []byte(`{"client":"c","info":"` + long(channels.MaxPublisher) + `"}`),
	"an array":                 []byte(`["client","c"]`),
	"a string":                 []byte(`"client"`),
	"no client":                []byte(`{"user":"ann"}`),
	"an empty client":          []byte(`{"client":"","user":"ann"}`),
	"another case":             []byte(`{"Client":"c"}`),
	"a client that is none":    []byte(`{"client":5}`),
	"a user that is none":      []byte(`{"client":"c","user":["ann"]}`),
	"an info that nests a lot": []byte(`{"client":"c","info":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`),
}

// A message from the mesh or the Store whose publisher cannot be one comes without.
func TestPublishersThatAreNone(t *testing.T) {
	change := func(*store.Page) {}
	s, _ := serveOpen(t, func(page *store.Page) { change(page) })
	live := serve(t, channels.Options{})
	sub := subscription(t, live.hub, "c", nil)
	arrives := func(info []byte) *channels.Publisher {
		p := mesh.Packet{Channel: "c", Header: "x", Body: json.RawMessage(`1`), Origin: "other", Info: info}
		channels.Take(live.hub, p)
		m := next(t, sub)
		require.Equal(t, "x", m.Header)
		return m.Publisher
	}
	stored := func(info []byte) *channels.Publisher {
		change = func(page *store.Page) {
			for i := range page.Entries {
				page.Entries[i].Info = info
			}
		}
		h := historyOf(t, s.hub, "c", channels.HistoryQuery{Limit: 1})
		require.Equal(t, "10", string(h.Messages[0].Body))
		return h.Messages[0].Publisher
	}
	for name, info := range noPublishers {
		require.Nil(t, arrives(info), name)
		require.Nil(t, stored(info), name)
	}
	require.Zero(t, live.hub.Stats().BadPackets)

	later := []byte(`{"since":{"a":1},"user":"\u0061nn","info":{ "b": 2 },"client":"c-1"}`) // of a version that says more
	want := &channels.Publisher{Client: "c-1", User: "ann", Info: json.RawMessage(`{ "b": 2 }`)}
	require.Equal(t, want, stored(later))
	got := arrives(later)
	clear(later) // the mesh does so
	require.Equal(t, want, got)
}

// A repetition passes the first message on, with the publisher that it has in the Store.
func TestARepeatedKeyPassesThePublisherOn(t *testing.T) {
	for name, hidden := range map[string]bool{"shown": false, "hidden": true} {
		t.Run(name, func(t *testing.T) {
			net, st := meshtest.NewNetwork(1), newMemory(t)
			o := channels.Options{ReplicaID: "a", Mesh: net.Join("a"), Store: st, Channel: every(channels.ChannelOptions{HistorySize: 10, HidePublishers: hidden})}
			t.Cleanup(func() { o.Mesh.Close() })
			other := net.Join("b")
			t.Cleanup(func() { other.Close() })
			require.NoError(t, other.Subscribe("c"))
			arrived := make(chan mesh.Packet, 10)
			go other.Receive(t.Context(), func(p mesh.Packet) { // ends with other
				if p.Channel == "c" && (p.Kind == mesh.KindMessage || p.Kind == mesh.KindAgain) {
					p.Body, p.Info = bytes.Clone(p.Body), bytes.Clone(p.Info)
					arrived <- p
				}
			})
			s := serve(t, o, whoIs(func(*http.Request) channels.Identity { return channels.Identity{ID: "ann"} }))
			w := s.join("c", "")
			var infos [2][]byte
			for i := range infos {
				w.send(`{"header":"m","body":1,"key":"k"}`)
				p := <-arrived
				require.EqualValues(t, 1, p.Offset)
				require.Equal(t, []mesh.Kind{mesh.KindMessage, mesh.KindAgain}[i], p.Kind)
				infos[i] = p.Info
			}
			require.Equal(t, infos[0], infos[1])
			require.Contains(t, string(infos[0]), `"time":`)
			require.Equal(t, hidden, !bytes.Contains(infos[0], []byte("ann")))
		})
	}
}

// What waits for a subscriber counts with its publisher.
func TestQueuesCountPublishers(t *testing.T) {
	info := `"` + long(1500) + `"`
	s := serve(t, channels.Options{}, whoIs(func(*http.Request) channels.Identity { return channels.Identity{Info: json.RawMessage(info)} }))
	sub := subscription(t, s.hub, "c", nil)
	w := s.join("c", "")
	w.send(say("1"))
	w.want("m", "1")
	until(t, "only the Go subscriber has not read it", func() bool {
		n := s.hub.Stats().Queued
		return n >= int64(len(info)) && n < 3*int64(len(info))
	})
	require.Len(t, next(t, sub).Publisher.Info, len(info))
	until(t, "nothing waits", func() bool { return s.hub.Stats().Queued == 0 })
}

// FuzzPublisher: whatever is taken for a publisher can be shown to clients, and comes
// back as it was.
func FuzzPublisher(f *testing.F) {
	for _, info := range noPublishers {
		f.Add(info)
	}
	f.Add([]byte(`{"client":"a-1","user":"ann","info":{"name":"Ann"}}`))
	f.Add([]byte("{\"info\":[\n1],\"user\":\"\\ud800\\n\",\"client\":\"\\u0041\",\"client\":\"b\",\"x\":null}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := channels.DecodePublisher(b)
		if p == nil {
			return
		}
		require.NotEmpty(t, p.Client)
		require.True(t, utf8.ValidString(p.Client) && utf8.ValidString(p.User))
		require.True(t, p.Info == nil || json.Valid(p.Info) && utf8.Valid(p.Info))
		require.False(t, bytes.ContainsAny(p.Info, "\r\n"))
		if again, err := channels.EncodePublisher(p); err == nil { // escaped, it may be too long
			require.Equal(t, p, channels.DecodePublisher(again))
		}
	})
}

// BenchmarkPublish is the way of a message of the app's own, which has no publisher.
func BenchmarkPublish(b *testing.B) {
	m := channels.Message{Header: "created", Body: json.RawMessage(`{"n":17,"text":"some words of a chat"}`)}
	for name, o := range map[string]channels.ChannelOptions{
		"live": {SlowSubscriber: channels.SlowKeepLatest},
		"kept": {HistorySize: 100},
	} {
		b.Run(name, func(b *testing.B) {
			hub := newHub(b, channels.Options{Channel: every(o)})
			if o.HistorySize == 0 {
				subscription(b, hub, "c", nil)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, err := hub.Publish(b.Context(), "c", m)
				require.NoError(b, err)
			}
		})
	}
}
