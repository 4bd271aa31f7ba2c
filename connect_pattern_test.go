package channels_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/mesh/meshtest"
)

// patternPush is what a subscriber of a pattern gets of a message with the default header.
func patternPush(pattern, channel, body string) string {
	return fmt.Sprintf(`{"push":{"channel":%q,"pub":{"data":%s,"tags":{"channel":%q}}}}`, pattern, body, channel)
}

func TestSubscribeToAPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, hooks lines
		hub := newHub(t, channels.Options{
			Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents}),
			Authorize: func(_ context.Context, r channels.Request) error {
				asked.add("%s %s %v %s", r.Action, r.Channel, r.Pattern, r.Identity.ID)
				if r.Pattern && r.Channel == "*" {
					return channels.ErrForbidden
				}
				return nil
			},
			OnSubscribe: func(_ context.Context, _ channels.Client, channel string) { hooks.add("%s", channel) },
		})
		publish(t, hub, "chat.a", "message", `"before"`)
		c := hello(t, hub, "ann")
		c.send(`{"id":2,"subscribe":{"channel":"chat.*","recover":true,"epoch":"e","offset":1,"positioned":true,"recoverable":true,"join_leave":true}}`)
		require.Equal(t, `{"id":2,"subscribe":{"was_recovering":true}}`, c.next(), "there is no position to go on from")
		c.refused(105, `"subscribe":{"channel":"chat.*"}`)
		c.refused(103, `"subscribe":{"channel":"*"}`)
		require.Equal(t, []string{"subscribe chat.* true ann", "subscribe * true ann"}, asked.take())
		for _, text := range []string{"a b*", "a/*", "[*", `*\\`, strings.Repeat("*", 201)} {
			c.refused(107, `"subscribe":{"channel":"`+text+`"}`)
		}
		for _, request := range []string{"presence", "presence_stats", "history"} {
			c.refused(108, `"`+request+`":{"channel":"chat.*"}`)
		}
		c.refused(107, `"publish":{"channel":"chat.*","data":1}`)
		require.Empty(t, asked.take(), "Authorize sees patterns only where there are some")
		c.subscribe(3, "?")
		require.Equal(t, []string{"chat.*", "?"}, hooks.take())
		require.Equal(t, 2, hub.Stats().Patterns)

		// Neither positions, nor who comes, nor its own messages if it wants none.
		publish(t, hub, "chat.b", "message", `"one"`)
		require.Equal(t, patternPush("chat.*", "chat.b", `"one"`), c.next())
		publish(t, hub, `chat."`, "x", "2")
		require.Equal(t, `{"push":{"channel":"chat.*","pub":{"data":2,"tags":{"header":"x","channel":"chat.\""}}}}`, c.next())
		publish(t, hub, "y", "message", "3")
		require.Equal(t, patternPush("?", "y", "3"), c.next())
		publishWith(t, hub, "chat.b", msg("x", `"own"`), channels.PublishOptions{Except: c.ID()})
		other := subscribedTo(t, hub, "bob", "chat.b")
		other.send(`{"id":4,"publish":{"channel":"chat.b","data":4}}`)
		require.Equal(t, `{"push":{"channel":"chat.*","pub":{"data":4,"info":{"user":"bob","client":"`+other.ID()+`"},"tags":{"channel":"chat.b"}}}}`, c.next())
		until(t, "bob is there", func() bool { return slices.Equal(users(t, hub, "chat.b"), []string{"bob"}) })

		// A channel that a pattern matches, too, is a subscription beside it.
		c.send(`{"id":5,"subscribe":{"channel":"chat.b"}}`)
		c.want(`{"id":5,"subscribe":{`)
		publish(t, hub, "chat.b", "message", "5")
		got := []string{c.next(), c.next()}
		require.Contains(t, got, patternPush("chat.*", "chat.b", "5"))
		require.Contains(t, strings.Join(got, ""), `{"push":{"channel":"chat.b","pub":{"data":5,"offset":4}}}`)

		// It ends by the client, or by the app, and with the connection.
		c.unsubscribe(6, "chat.*")
		publish(t, hub, "chat.c", "message", "6")
		require.Equal(t, 1, hub.Stats().Patterns)
		require.Equal(t, 1, unsubscribed(t, hub.UnsubscribeUser, "ann", "?"))
		require.Equal(t, `{"push":{"channel":"?","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`, c.next())
		require.Zero(t, unsubscribed(t, hub.UnsubscribeUser, "ann", "?"))
		require.Zero(t, hub.Stats().Patterns)
		c.subscribe(7, "chat.*")
		publish(t, hub, "chat.c", "message", "7")
		require.Equal(t, patternPush("chat.*", "chat.c", "7"), c.next())
		require.Equal(t, 1, disconnected(t, hub.DisconnectUser, "ann"))
		c.wantEnd(3503, "disconnected")
		require.Zero(t, hub.Stats().Patterns)
	})
}

// A message comes as its text and in Protobuf to whom it concerns, and no other way.
func TestPatternsOverBothFormats(t *testing.T) {
	s := serve(t, channels.Options{})
	text, binary := s.session(), s.protobufSession()
	binary.format = clientproto.Protobuf
	for _, c := range []*sessionClient{text, binary} {
		require.NotNil(t, c.ask(&clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{}}).Connect)
		r := c.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: "chat.[a-c]*"}})
		require.Equal(t, &clientproto.Reply{ID: 2, Subscribe: &clientproto.SubscribeResult{}}, r)
	}
	publish(t, s.hub, "chat.d", "message", "0")
	publish(t, s.hub, "chat.b1", "other", `{"n":1}`)
	for _, c := range []*sessionClient{text, binary} {
		require.Equal(t, &clientproto.Push{Channel: "chat.[a-c]*", Pub: &clientproto.Publication{
			Data: []byte(`{"n":1}`), Tags: clientproto.Tags{Header: "other", Channel: "chat.b1"}}}, c.next().Push)
		require.NotNil(t, c.ask(&clientproto.Command{ID: 3, Unsubscribe: &clientproto.UnsubscribeRequest{Channel: "chat.[a-c]*"}}).Unsubscribe)
		c.Close()
	}
	until(t, "the connections leave", func() bool { return s.hub.Stats().Connections == 0 })
	require.Zero(t, s.hub.Stats().Patterns)
}

// A message is encoded once for each pattern and format, not for each subscriber.
func TestPatternsEncodeOnce(t *testing.T) {
	hub := newHub(t, channels.Options{})
	subscriber := func(protobuf bool, pattern string) *channels.Receiver {
		format := clientproto.JSON
		if protobuf {
			format = clientproto.Protobuf
		}
		r := channels.Arrive(hub, nil, protobuf)
		for _, cmd := range []*clientproto.Command{{ID: 1, Connect: &clientproto.ConnectRequest{}}, {ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: pattern}}} {
			require.NoError(t, r.Send(string(clientproto.AppendCommand(nil, format, cmd))))
			require.NotEmpty(t, r.Encoded())
		}
		t.Cleanup(func() { r.Leave() })
		return r
	}
	var groups [][]*channels.Receiver
	for _, protobuf := range []bool{false, true} {
		for _, pattern := range []string{"a*", "?"} {
			groups = append(groups, []*channels.Receiver{subscriber(protobuf, pattern), subscriber(protobuf, pattern), subscriber(protobuf, pattern)})
		}
	}
	require.Equal(t, 12, publish(t, hub, "a", "message", "1").Receivers)
	seen := map[*byte]bool{}
	for _, group := range groups {
		first := group[0].Encoded()
		require.NotEmpty(t, first)
		require.False(t, seen[&first[0]])
		seen[&first[0]] = true
		for _, r := range group[1:] {
			require.Same(t, &first[0], &r.Encoded()[0])
		}
	}
}

func TestPatternsCountAsSubscriptions(t *testing.T) {
	hub := newHub(t, channels.Options{MaxSubscriptions: 3, MaxPatterns: 3})
	c := subscribedTo(t, hub, "ann", "a", "b*", "c*")
	c.refused(106, `"subscribe":{"channel":"d*"}`)
	c.refused(106, `"subscribe":{"channel":"d"}`)
	c.unsubscribe(8, "b*")
	c.subscribe(9, "d*")

	// The replica's bound passes when others have left.
	other := subscribedTo(t, hub, "bob", "c*", "e*")
	other.send(`{"id":7,"subscribe":{"channel":"f*"}}`)
	require.Regexp(t, `^{"id":7,"error":{"code":100,"message":"[^"]+","temporary":true}}$`, other.next())
	c.unsubscribe(10, "d*")
	other.subscribe(8, "f*")
}

// The right to a pattern ends as that to a channel, and Authorize learns each time that
// it is a pattern.
func TestPatternWithATokenThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked lines
		hub := newHub(t, channels.Options{PingPeriod: 10 * time.Minute, Authenticate: tokens, Authorize: func(_ context.Context, r channels.Request) error {
			asked.add("%s %v %s", r.Channel, r.Pattern, r.Token)
			if r.Token != "" {
				r.Until(time.Now().Add(time.Minute))
			}
			return nil
		}})
		c := comes(t, hub, nil)
		c.send(`{"id":1,"connect":{"token":"ann"}}`)
		c.want(`{"id":1,"connect":{`)
		c.send(`{"id":2,"subscribe":{"channel":"a*","token":"one"}}`)
		require.Equal(t, `{"id":2,"subscribe":{"expires":true,"ttl":60}}`, c.next())
		c.subscribe(3, "b*")
		c.send(`{"id":4,"sub_refresh":{"channel":"a*","token":"two"}}`)
		require.Equal(t, `{"id":4,"sub_refresh":{"expires":true,"ttl":60}}`, c.next())
		c.send(`{"id":5,"refresh":{"token":"ann"}}`)
		c.want(`{"id":5,"refresh":{`)
		require.Equal(t, []string{"a* true one", "b* true ", "a* true two", "b* true "}, asked.take())
		time.Sleep(86 * time.Second)
		require.Equal(t, `{"push":{"channel":"a*","unsubscribe":{"code":2501,"reason":"expired"}}}`, c.next())
		require.Equal(t, 1, hub.Stats().Patterns)
	})
}

// A session that does not read holds nobody up. What happens to it is what
// Options.Channel says of the pattern.
func TestSlowSessionOfAPattern(t *testing.T) {
	for name, policy := range map[string]channels.SlowPolicy{"close": channels.SlowClose, "oldest": channels.SlowDropOldest, "latest": channels.SlowKeepLatest} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := newHub(t, channels.Options{MaxMessageBytes: 1 << 10, QueueBytes: 4 << 10,
					Channel: named(map[string]channels.ChannelOptions{"c*": {SlowSubscriber: policy}})})
				slow, quick := subscribedTo(t, hub, "ann", "c*"), subscribedTo(t, hub, "bob", "c*")
				for i := range 50 {
					publish(t, hub, fmt.Sprint("c", i%3), fmt.Sprint(i), `"`+strings.Repeat("x", 900)+`"`)
					require.Contains(t, quick.next(), fmt.Sprintf(`"tags":{"header":"%d","channel":"c%d"}`, i, i%3))
				}
				if policy == channels.SlowClose {
					slow.wantEnd(3008, "slow_subscriber")
					require.EqualValues(t, 1, hub.Stats().SlowClosed)
					return
				}
				n := 1
				for line := slow.next(); !strings.Contains(line, `"header":"49"`); line = slow.next() {
					n++
				}
				require.Less(t, n, 6)
				require.EqualValues(t, 50-n, hub.Stats().Dropped)
				require.Zero(t, hub.Stats().SlowClosed)
			})
		})
	}
}

func TestSessionOfAPatternEndsWithTheHub(t *testing.T) {
	for cause, end := range map[string]func(h *channels.Hub) error{
		"draining": func(h *channels.Hub) error { return h.Drain(context.Background()) },
		"closed":   func(h *channels.Hub) error { return h.Shutdown(context.Background()) },
	} {
		t.Run(cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := &recorder{Mesh: meshtest.NewNetwork(1).Join("self")}
				defer node.Close()
				hub := newHub(t, channels.Options{ReplicaID: "self", Mesh: node, Store: newMemory(t)})
				defer hub.Shutdown(context.Background())
				c := subscribedTo(t, hub, "ann", "chat.*", "chat.?", "chat.a")
				done := background(func() error { return end(hub) })
				c.wantEnd(3001, cause)
				require.NoError(t, <-done)
				require.Zero(t, hub.Stats().Patterns)
				require.Equal(t, []string{"+chat.", "-chat."}, node.asked.list())
			})
		})
	}
}

// Sessions and their patterns are at different replicas, and the app ends one from a
// third.
func TestSessionOfAPatternOnAllReplicas(t *testing.T) {
	inBubble(t, 3, history, func(r *replicas) {
		c := subscribedTo(r.t, r.hubs[1], "ann", "chat.*")
		synctest.Wait()
		publisher := subscribedTo(r.t, r.hubs[0], "bob", "chat.b")
		publisher.send(`{"id":4,"publish":{"channel":"chat.a","data":1}}`)
		publisher.want(`{"id":4,"publish":{`)
		require.Equal(r.t, `{"push":{"channel":"chat.*","pub":{"data":1,"info":{"user":"bob","client":"`+publisher.ID()+`"},"tags":{"channel":"chat.a"}}}}`, c.next())
		unsubscribed(r.t, r.hubs[2].UnsubscribeUser, "ann", "chat.*")
		require.Equal(r.t, `{"push":{"channel":"chat.*","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`, c.next())
		require.Zero(r.t, r.hubs[1].Stats().Patterns)
		publish(r.t, r.hubs[0], "chat.a", "message", "2")
		c.subscribe(5, "chat.?")
		synctest.Wait()
		publish(r.t, r.hubs[0], "chat.a", "message", "3")
		require.Equal(r.t, patternPush("chat.?", "chat.a", "3"), c.next())
		for i, one := range []*lineClient{publisher, c} { // the hubs' shutdown waits for them
			disconnected(r.t, r.hubs[i].DisconnectClient, one.ID())
			one.wantEnd(3503, "disconnected")
		}
	})
}

// A session gets no message before the answer to its subscribe, nor after that to its
// unsubscribe, whatever is published and subscribed to meanwhile.
func TestSessionsOfPatternsAreConcurrent(t *testing.T) {
	hub := newHub(t, channels.Options{})
	stop := repeatedly(func(int) {
		sub, err := hub.SubscribePattern(context.Background(), "c.1*")
		if err == nil {
			sub.Close()
		}
	})
	defer stop()
	const n = 20
	burst := func(first int) (published func()) { // which returns after the first ones
		var wg sync.WaitGroup
		out := make(chan struct{})
		wg.Go(func() {
			for i := range n {
				if i == first {
					close(out)
				}
				hub.Publish(context.Background(), fmt.Sprint("c.", i%5), msg("message", "1"))
			}
		})
		<-out
		return wg.Wait
	}
	c := hello(t, hub, "ann")
	early, late := 0, 0
	for i := range 300 {
		published := burst(i % n)
		c.send(`{"id":2,"subscribe":{"channel":"c.*"}}`)
		published()
		require.Equal(t, `{"id":2,"subscribe":{}}`, c.next())
		publish(t, hub, "c.x", "message", `"last"`)
		line := c.next()
		for ; strings.Contains(line, `"data":1,`); line = c.next() {
			early++
		}
		require.Equal(t, patternPush("c.*", "c.x", `"last"`), line)
		published = burst(i % n)
		c.send(`{"id":3,"unsubscribe":{"channel":"c.*"}}`)
		published()
		for line = c.next(); strings.Contains(line, `"data":1,`); line = c.next() {
			late++
		}
		require.Equal(t, `{"id":3,"unsubscribe":{}}`, line)
	}
	const before = 300 * (n - 1) / 2 // what the bursts had published when they returned
	require.LessOrEqual(t, early, 300*n-before)
	require.GreaterOrEqual(t, late, before)
}
