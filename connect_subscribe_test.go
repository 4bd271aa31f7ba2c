package channels_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// many is a hub, and what its hooks were told.
type many struct {
	*channels.Hub
	t     *testing.T
	hooks lines
}

func newMany(t *testing.T) *many {
	m := &many{t: t}
	m.Hub = newHub(t, channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{Presence: channels.PresenceList}
			switch name[0] {
			case 'h':
				o.HistorySize = 100
			case 'e':
				o.Presence = channels.PresenceEvents
			}
			return o
		},
		Authorize:    forbids("forbidden"),
		OnConnect:    func(context.Context, channels.Client) error { m.hooks.add("connect"); return nil },
		OnSubscribe:  func(_ context.Context, _ channels.Client, channel string) { m.hooks.add("subscribe %s", channel) },
		OnDisconnect: func(_ channels.Client, cause error) { m.hooks.add("disconnect %s", reasonCode(cause)) },
	})
	return m
}

func (m *many) publish(channel, body string) channels.Position {
	m.t.Helper()
	return publish(m.t, m.Hub, channel, "message", `"`+body+`"`).Position
}

// members is who is in a channel.
func (m *many) members(channel string) (ids []string) {
	m.t.Helper()
	ms, err := m.Presence(context.Background(), channel, 0)
	require.NoError(m.t, err)
	for _, one := range ms.Members {
		ids = append(ids, one.ID)
	}
	return ids
}

func TestSessionOfSeveralSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		c := subscribedTo(t, m.Hub, "ann", "a", "b", "c")
		c.refused(105, `"subscribe":{"channel":"b"}`)
		c.refused(105, `"subscribe":{"channel":"a"}`)
		c.refused(103, `"subscribe":{"channel":"forbidden"}`)
		c.refused(103, `"subscribe":{"channel":"forbidden"}`)
		require.Equal(t, []string{"connect", "subscribe a", "subscribe b", "subscribe c"}, m.hooks.take())
		for _, name := range []string{"a", "b", "c"} {
			require.Equal(t, []string{c.ID()}, m.members(name))
			m.publish(name, name)
			require.Equal(t, `{"push":{"channel":"`+name+`","pub":{"data":"`+name+`"}}}`, c.next())
		}

		// The app ends some, in the order in which they came and in another one.
		for _, name := range []string{"a", "c"} {
			require.Equal(t, 1, unsubscribed(t, m.UnsubscribeUser, "ann", name))
			require.Equal(t, `{"push":{"channel":"`+name+`","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`, c.next())
			require.Empty(t, m.members(name))
			require.Zero(t, unsubscribed(t, m.UnsubscribeClient, c.ID(), name), "it has ended already")
			m.publish(name, "nobody")
		}
		m.publish("b", "still")
		require.Equal(t, `{"push":{"channel":"b","pub":{"data":"still"}}}`, c.next())
		for _, name := range []string{"c", "a"} {
			c.subscribe(9, name)
			m.publish(name, "again")
			require.Equal(t, `{"push":{"channel":"`+name+`","pub":{"data":"again"}}}`, c.next())
		}

		// Without any, the connection stays.
		for _, name := range []string{"b", "a", "c"} {
			c.unsubscribe(10, name)
			require.Empty(t, m.members(name))
		}
		c.unsubscribe(10, "never")
		c.subscribe(11, "a")
		require.Equal(t, []string{c.ID()}, m.members("a"))
		require.Equal(t, 1, disconnected(t, m.DisconnectUser, "ann"))
		c.wantEnd(3503, "disconnected")
		require.Empty(t, m.members("a"))
		require.Equal(t, []string{"subscribe c", "subscribe a", "subscribe a", "disconnect disconnected"}, m.hooks.take())
	})
}

func TestSubscribeToWhatIsNoChannel(t *testing.T) {
	hub := newHub(t, channels.Options{})
	c := hello(t, hub, "ann")
	for _, name := range []string{"", "a/b", "a b", ".", strings.Repeat("x", 201)} {
		c.refused(107, `"subscribe":{"channel":"`+name+`"}`)
	}
	c.refused(108, `"subscribe":{"channel":"a","type":1}`)
	c.refused(108, `"subscribe":{"channel":"a","tf":{"op":"eq"}}`)
	c.subscribe(8, "a")
	require.Zero(t, hub.Stats().SlowClosed)
}

func TestSubscribeUpToALimit(t *testing.T) {
	hub := newHub(t, channels.Options{MaxSubscriptions: 3})
	c := subscribedTo(t, hub, "ann", "a", "b", "c")
	c.refused(106, `"subscribe":{"channel":"d"}`)
	c.refused(105, `"subscribe":{"channel":"c"}`)
	c.unsubscribe(8, "b")
	c.subscribe(9, "d")
	c.refused(106, `"subscribe":{"channel":"e"}`)
}

func TestSubscribeWithATokenThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{PingPeriod: 10 * time.Minute, Authorize: func(_ context.Context, r channels.Request) error {
			switch r.Token {
			case "minute":
				r.Until(time.Now().Add(time.Minute))
			case "old":
				return channels.ErrExpired
			case "bad":
				return channels.ErrForbidden
			}
			return nil
		}})
		c := hello(t, hub, "ann")
		c.refused(109, `"subscribe":{"channel":"a","token":"old"}`)
		c.refused(103, `"subscribe":{"channel":"a","token":"bad"}`)
		c.refused(103, `"sub_refresh":{"channel":"a","token":"minute"}`)
		begin := time.Now()
		c.send(`{"id":2,"subscribe":{"channel":"a","token":"minute"}}`)
		require.Equal(t, `{"id":2,"subscribe":{"expires":true,"ttl":60}}`, c.next())
		for range 3 {
			time.Sleep(80 * time.Second)
			c.send(`{"id":3,"sub_refresh":{"channel":"a","token":"minute"}}`)
			require.Equal(t, `{"id":3,"sub_refresh":{"expires":true,"ttl":60}}`, c.next())
		}
		c.refused(109, `"sub_refresh":{"channel":"a","token":"old"}`)
		c.refused(103, `"sub_refresh":{"channel":"a","token":"bad"}`)
		require.Equal(t, `{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"expired"}}}`, c.next())
		require.Equal(t, (240+85)*time.Second, time.Since(begin))

		// It may be had again, and then for ever.
		c.send(`{"id":4,"subscribe":{"channel":"a","token":"minute"}}`)
		c.want(`"ttl":60`)
		c.send(`{"id":5,"sub_refresh":{"channel":"a","token":"for ever"}}`)
		require.Equal(t, `{"id":5,"sub_refresh":{}}`, c.next())
		time.Sleep(5 * time.Minute)
		publish(t, hub, "a", "message", "1")
		c.want(`"pub":{"data":1}`)
	})
}

func TestSubscribeWithJoinAndLeave(t *testing.T) {
	m := newMany(t)
	c := hello(t, m.Hub, "ann")
	c.send(`{"id":2,"subscribe":{"channel":"e","join_leave":true}}`)
	c.want(`{"id":2,"subscribe":{}}`)
	c.want(`{"push":{"channel":"e","join":{"info":{"user":"ann","client":"` + c.ID() + `"}}}}`)
	quiet := subscribedTo(t, m.Hub, "bob", "e")
	c.want(`{"push":{"channel":"e","join":{"info":{"user":"bob","client":"` + quiet.ID() + `"}}}}`)
	other := comes(t, m.Hub, &channels.Identity{ID: "eve", Info: json.RawMessage(`{"n":1}`)})
	other.send(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"e"}}`)
	c.want(`{"push":{"channel":"e","join":{"info":{"user":"eve","client":"` + other.ID() + `","conn_info":{"n":1}}}}}`)
	disconnect(m.Hub, "eve")
	other.wantEnd(3503, "disconnected")
	c.want(`{"push":{"channel":"e","leave":{"info":{"user":"eve","client":"` + other.ID() + `","conn_info":{"n":1}}}}}`)
	m.publish("e", "x")
	require.Equal(t, `{"push":{"channel":"e","pub":{"data":"x"}}}`, quiet.next(), "it has not asked for the others")
}

// A subscription that the app ends while the client is being subscribed does not stay.
func TestSubscribeWhileTheAppUnsubscribes(t *testing.T) {
	ctx := context.Background()
	m := newMany(t)
	c := subscribedTo(t, m.Hub, "ann", "a")
	unsubscribe := func(int) { m.UnsubscribeUser(ctx, "ann", "b") }
	stop1, stop2 := repeatedly(unsubscribe), repeatedly(unsubscribe)
	for range 300 {
		c.send(`{"id":2,"subscribe":{"channel":"b"}}`)
		for line := ""; !strings.HasPrefix(line, `{"id":2,`); {
			line = c.next()
		}
		m.publish("b", "x")
	}
	stop1()
	stop2()
	disconnected(t, m.DisconnectUser, "ann")
	c.wantEnd(3503, "disconnected")
	for _, name := range []string{"a", "b"} {
		require.Empty(t, m.members(name))
		info, err := m.Channel(ctx, name)
		require.NoError(t, err)
		require.Zero(t, info.Subscribers)
	}
}

// What is just ending may be subscribed to in a moment: SDKs would give up after 105.
func TestSubscribeToWhatTheAppEnds(t *testing.T) {
	m := newMany(t)
	c := subscribedTo(t, m.Hub, "ann", "b")
	stop := repeatedly(func(int) { m.UnsubscribeUser(context.Background(), "ann", "b") })
	defer stop()
	for range 3000 {
		c.send(`{"id":2,"unsubscribe":{"channel":"b"}}` + "\n" + `{"id":3,"subscribe":{"channel":"b"}}`)
		line := ""
		for !strings.HasPrefix(line, `{"id":3,`) {
			line = c.next()
		}
		if strings.Contains(line, "error") {
			require.Regexp(t, `"code":100,.*"temporary":true`, line)
		}
	}
}

// What the hub says itself goes by the channel that drops least.
func TestSlowSessionOfTwoPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := named(map[string]channels.ChannelOptions{"latest": {SlowSubscriber: channels.SlowKeepLatest}})
		hub := newHub(t, channels.Options{MaxMessageBytes: 1 << 10, QueueBytes: 4 << 10, Channel: options})
		c := subscribedTo(t, hub, "ann", "latest")
		for range 10 {
			publish(t, hub, "latest", "n", `"`+strings.Repeat("x", 900)+`"`)
		}
		require.Zero(t, hub.Stats().SlowClosed)
		c.send(`{"id":2,"subscribe":{"channel":"each"}}`)
		for range 200 {
			c.send(`{"id":3,"unsubscribe":{"channel":"never"}}`)
		}
		require.EqualValues(t, 1, hub.Stats().SlowClosed, "one of its channels drops nothing, so a reply is not dropped either")
		c.wantEnd(3008, "slow_subscriber")
	})
}

func TestDrainOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		c := subscribedTo(t, m.Hub, "ann", "a", "b")
		done := background(func() error { return m.Drain(context.Background()) })
		c.wantEnd(3001, "draining")
		require.NoError(t, <-done)
		require.Empty(t, m.members("a"))
		require.Empty(t, m.members("b"))
		require.Equal(t, []string{"connect", "subscribe a", "subscribe b", "disconnect draining"}, m.hooks.take())
	})
}

func TestShutdownOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		c := subscribedTo(t, m.Hub, "ann", "a", "b")
		done := background(func() error { return m.Shutdown(context.Background()) })
		c.wantEnd(3001, "closed")
		require.NoError(t, <-done)
	})
}
