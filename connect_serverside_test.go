package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// welcoming is a hub whose OnConnect subscribes each connection to channels.
func welcoming(t *testing.T, o channels.Options, names ...string) *channels.Hub {
	var hub *channels.Hub
	o.OnConnect = func(ctx context.Context, c channels.Client) error {
		for _, name := range names {
			if _, err := hub.SubscribeClient(ctx, c.ID, name); err != nil {
				return err
			}
		}
		return nil
	}
	hub = newHub(t, o)
	return hub
}

// subs are those in a reply to connect.
func (c *lineClient) subs() map[string]string {
	c.t.Helper()
	var r struct {
		ID      int
		Connect struct{ Subs map[string]json.RawMessage }
	}
	line := c.next()
	require.NoError(c.t, json.Unmarshal([]byte(line), &r), line)
	require.Equal(c.t, 1, r.ID, line)
	subs := make(map[string]string)
	for name, sub := range r.Connect.Subs {
		subs[name] = string(sub)
	}
	return subs
}

// comesBack sends a connect that says where the client was in a channel.
func (c *lineClient) comesBack(channel string, at channels.Position) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":1,"connect":{"subs":{%q:{"recover":true,"epoch":%q,"offset":%d}}}}`, channel, at.Epoch, at.Offset))
}

func subscribedPush(channel, how string) string {
	return `{"push":{"channel":"` + channel + `","subscribe":{` + how + `}}}`
}

func unsubscribedPush(channel string) string {
	return `{"push":{"channel":"` + channel + `","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`
}

func TestOnConnectSubscribes(t *testing.T) {
	var hooks lines
	hub := welcoming(t, channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{Presence: channels.PresenceList}
			if name == "h" {
				o.HistorySize = 10
			}
			return o
		},
		MaxSubscriptions: 3,
		Authorize:        forbids("a"),
		OnSubscribe:      func(_ context.Context, _ channels.Client, channel string) { hooks.add("subscribe %s", channel) },
	}, "a", "h", "a")
	at := publishN(t, hub, "h", 1, 3)
	c := comes(t, hub, &channels.Identity{ID: "ann"})
	c.send(`{"id":1,"connect":{}}`)
	require.Equal(t, map[string]string{"a": `{}`, "h": `{"recoverable":true,"epoch":"` + at.Epoch + `","offset":3,"positioned":true}`}, c.subs())
	require.Equal(t, []string{"subscribe a", "subscribe h"}, hooks.take())
	for _, name := range []string{"a", "h"} {
		members, err := hub.Presence(context.Background(), name, 0)
		require.NoError(t, err)
		require.Len(t, members.Members, 1)
	}
	publishN(t, hub, "h", 4, 4)
	require.Equal(t, `{"push":{"channel":"h","pub":`+pub(4)+`}}`, c.next())
	publish(t, hub, "a", "message", `"x"`)
	require.Equal(t, `{"push":{"channel":"a","pub":{"data":"x"}}}`, c.next())

	c.refused(105, `"subscribe":{"channel":"h"}`)
	c.refused(108, `"sub_refresh":{"channel":"h","token":"x"}`)
	c.subscribe(2, "b")
	c.refused(106, `"subscribe":{"channel":"c"}`) // the app's count, too

	// The client may end them, and cannot come again where Authorize refuses.
	c.unsubscribe(3, "a")
	c.refused(103, `"subscribe":{"channel":"a"}`)
	members, err := hub.Presence(context.Background(), "a", 0)
	require.NoError(t, err)
	require.Empty(t, members.Members)
	require.Equal(t, 1, unsubscribed(t, hub.UnsubscribeUser, "ann", "h"))
	require.Equal(t, unsubscribedPush("h"), c.next())
	publishN(t, hub, "h", 5, 5)
	c.refused(105, `"subscribe":{"channel":"b"}`) // it comes next
}

func TestOnConnectSubscribesToWhatCannotBe(t *testing.T) {
	for _, names := range [][]string{{"a/b"}, {""}, {"chat.*"}, {"a", "b", "c"}} {
		hub := welcoming(t, channels.Options{MaxSubscriptions: 2}, names...)
		c := comes(t, hub, nil)
		for range 2 { // what it asked for is forgotten
			c.send(`{"id":1,"connect":{}}`)
			require.Contains(t, c.next(), `{"id":1,"error":{"code":10`)
		}
		require.Zero(t, hub.Stats().Connections)
		require.Zero(t, subscribers(t, hub, "a"))
	}
}

func subscribers(t *testing.T, h *channels.Hub, channel string) int {
	t.Helper()
	info, err := h.Channel(context.Background(), channel)
	require.NoError(t, err)
	return info.Subscribers
}

// A client that OnConnect has refused may try again. It gets only what OnConnect asks
// for then, and nothing that the app has asked for before OnConnect.
func TestOnConnectRefusesWhatItHasSubscribed(t *testing.T) {
	var hub *channels.Hub
	tries := 0
	hub = newHub(t, channels.Options{OnConnect: func(ctx context.Context, c channels.Client) error {
		tries++
		n, err := hub.SubscribeClient(ctx, c.ID, fmt.Sprint("c", tries))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		if tries == 1 {
			return channels.ErrForbidden
		}
		require.Equal(t, 1, unsubscribed(t, hub.UnsubscribeClient, c.ID, "c2"))
		require.Zero(t, unsubscribed(t, hub.UnsubscribeClient, c.ID, "c2"))
		_, err = hub.SubscribeUser(ctx, "ann", "c3")
		return err
	}})
	c := comes(t, hub, &channels.Identity{ID: "ann"})
	require.Zero(t, unsubscribed(t, hub.SubscribeUser, "ann", "early"))
	c.send(`{"id":1,"connect":{}}`)
	c.wantError(1, 103)
	c.send(`{"id":1,"connect":{}}`)
	require.Equal(t, map[string]string{"c2": `{}`, "c3": `{}`}, c.subs())
	require.Equal(t, unsubscribedPush("c2"), c.next())
	for name, n := range map[string]int{"early": 0, "c1": 0, "c2": 0, "c3": 1} {
		require.Equal(t, n, subscribers(t, hub, name), name)
	}
}

func TestConnectRecovers(t *testing.T) {
	hub := welcoming(t, channels.Options{Channel: keep(20)}, "h", "new")
	at := publishN(t, hub, "h", 1, 30)
	begin := `{"recoverable":true,"epoch":"` + at.Epoch + `",`
	lost := begin + `"offset":30,"positioned":true,"was_recovering":true}`
	for from, want := range map[channels.Position]string{
		{Epoch: at.Epoch, Offset: 30}: begin + `"recovered":true,"offset":30,"positioned":true,"was_recovering":true}`,
		{Epoch: at.Epoch, Offset: 28}: begin + `"publications":` + pubs(29, 30) + `,"recovered":true,"offset":30,"positioned":true,"was_recovering":true}`,
		{Epoch: at.Epoch, Offset: 10}: begin + `"publications":` + pubs(11, 30) + `,"recovered":true,"offset":30,"positioned":true,"was_recovering":true}`,
		{Epoch: at.Epoch, Offset: 9}:  lost, // trimmed
		{Epoch: "other", Offset: 30}:  lost,
		{Epoch: at.Epoch, Offset: 31}: lost,
	} {
		c := comes(t, hub, &channels.Identity{ID: "ann"})
		c.comesBack("h", from)
		require.Equal(t, want, c.subs()["h"], from)
		disconnect(hub, c.ID())
	}
	c := comes(t, hub, &channels.Identity{ID: "ann"})
	c.comesBack("its_own", at)
	subs := c.subs()
	require.Len(t, subs, 2)
	require.Equal(t, begin+`"offset":30,"positioned":true}`, subs["h"], "it has not asked")
	require.Zero(t, subscribers(t, hub, "its_own"))
}

// The reply to connect comes first, and then what was published while it waited for the
// Store. The channels are read at the same time.
func TestConnectRecoversWhileMessagesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := welcoming(t, channels.Options{PingPeriod: time.Second, Channel: named(map[string]channels.ChannelOptions{"h1": {HistorySize: 100}, "h2": {HistorySize: 100}}),
			Store: &rangeStore{newMemory(t), func(context.Context, string) error { time.Sleep(4 * time.Second); return nil }}}, "h1", "h2", "live")
		at := publishN(t, hub, "h1", 1, 10)
		publishN(t, hub, "h2", 1, 10)
		c := comes(t, hub, &channels.Identity{ID: "ann"})
		begin := time.Now()
		sent := background(func() error {
			return c.Send(fmt.Sprintf(`{"id":1,"connect":{"subs":{"h1":{"recover":true,"epoch":%q,"offset":5},"h2":{"recover":true,"epoch":"x","offset":5}}}}`, at.Epoch))
		})
		settle(2 * time.Second)
		publishN(t, hub, "h1", 11, 12)
		publishN(t, hub, "h2", 11, 11)
		publish(t, hub, "live", "message", `"x"`)
		require.NoError(t, <-sent)
		require.Equal(t, 4*time.Second, time.Since(begin))
		subs := c.subs()
		require.Contains(t, subs["h1"], `"publications":`+pubs(6, 12)+`,"recovered":true`, "the Store has answered last")
		require.Contains(t, subs["h2"], `"offset":11,"positioned":true,"was_recovering":true`)
		require.Equal(t, `{"push":{"channel":"live","pub":{"data":"x"}}}`, c.next())
		publishN(t, hub, "h1", 13, 13)
		publishN(t, hub, "h2", 12, 12)
		require.Equal(t, `{"push":{"channel":"h1","pub":`+pub(13)+`}}`, c.next())
		require.Equal(t, `{"push":{"channel":"h2","pub":`+pub(12)+`}}`, c.next())
	})
}

// What does not fit into the reply follows it, and nothing is missing or twice.
func TestConnectRecoversMoreThanTheQueueHolds(t *testing.T) {
	var names []string
	for n := range 8 {
		names = append(names, fmt.Sprint("h", n))
	}
	hub := welcoming(t, channels.Options{Channel: keep(1000), MaxMessageBytes: 8 << 10, QueueBytes: 64 << 10}, names...)
	asked, next := "", make(map[string]uint64)
	for _, name := range names {
		at := channels.Position{}
		for range 20 {
			at = publish(t, hub, name, "message", `"`+long(1000)+`"`).Position
		}
		asked += fmt.Sprintf(`,%q:{"recover":true,"epoch":%q}`, name, at.Epoch)
		next[name] = 1
	}
	c := comes(t, hub, nil)
	c.send(`{"id":1,"connect":{"subs":{` + asked[1:] + `}}}`)
	type publication struct{ Offset uint64 }
	reply := c.next()
	require.Less(t, len(reply), 40<<10)
	var connect struct {
		Connect struct {
			Subs map[string]struct {
				Recovered    bool
				Offset       uint64
				Publications []publication
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(reply), &connect))
	left := len(names) * 20
	got := func(name string, offset uint64) {
		require.Equal(t, next[name], offset, name)
		next[name]++
		left--
	}
	for name, sub := range connect.Connect.Subs {
		require.True(t, sub.Recovered)
		require.NotEmpty(t, sub.Publications)
		for _, p := range sub.Publications {
			got(name, p.Offset)
		}
		require.Equal(t, next[name]-1, sub.Offset)
	}
	require.NotZero(t, left)
	for left > 0 {
		var push struct {
			Push struct {
				Channel string
				Pub     publication
			}
		}
		require.NoError(t, json.Unmarshal([]byte(c.next()), &push))
		got(push.Push.Channel, push.Push.Pub.Offset)
	}
	require.Zero(t, hub.Stats().SlowClosed)
}

// If the Store fails, the client comes again. OnDisconnect follows OnConnect.
func TestOnConnectSubscribesWhileTheStoreFails(t *testing.T) {
	var fails atomic.Bool
	var hooks lines
	hub := welcoming(t, channels.Options{Channel: named(map[string]channels.ChannelOptions{"h": {HistorySize: 10}}),
		Store: &rangeStore{newMemory(t), func(context.Context, string) error {
			if fails.Load() {
				return errors.New("test")
			}
			return nil
		}},
		OnDisconnect: func(_ channels.Client, cause error) { hooks.add("%s", reasonCode(cause)) },
	}, "a", "h", "b")
	at := publishN(t, hub, "h", 1, 3)
	fails.Store(true)
	c := comes(t, hub, &channels.Identity{ID: "ann"})
	at.Offset = 1
	c.comesBack("h", at)
	c.wantEnd(3004, "store_unavailable")
	require.Equal(t, []string{"store_unavailable"}, hooks.take())
	fails.Store(false)
	for _, name := range []string{"a", "b", "h"} {
		require.Zero(t, subscribers(t, hub, name), name)
	}
	c = comes(t, hub, &channels.Identity{ID: "ann"})
	c.comesBack("h", at)
	require.Contains(t, c.subs()["h"], `"publications":`+pubs(2, 3)+`,"recovered":true`)
}

// If such a subscription has missed messages, the client has to connect again: it
// cannot subscribe by itself. It then learns that it cannot recover.
func TestServerSideSubscriptionAfterTheStoreHasLostTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &switchedStore{Store: newMemory(t)}
		hub := welcoming(t, channels.Options{Channel: keep(100), Store: st}, "h")
		at := publishN(t, hub, "h", 1, 3)
		c := comes(t, hub, &channels.Identity{ID: "ann"})
		c.send(`{"id":1,"connect":{}}`)
		c.subs()
		st.to(newMemory(t))
		again := publish(t, hub, "h", "message", `"new"`).Position
		c.wantEnd(3010, "none")
		c = comes(t, hub, &channels.Identity{ID: "ann"})
		c.comesBack("h", at)
		require.Equal(t, `{"recoverable":true,"epoch":"`+again.Epoch+`","offset":1,"positioned":true,"was_recovering":true}`, c.subs()["h"])
	})
}

// A refresh does not ask for what the app has asked for itself.
func TestServerSideSubscriptionAfterARefresh(t *testing.T) {
	hub := newHub(t, channels.Options{Authenticate: tokens, Authorize: forbids("a")})
	c := comes(t, hub, nil)
	c.send(`{"id":1,"connect":{"token":"ann"}}`)
	c.want(`"connect":{`)
	require.Equal(t, 1, unsubscribed(t, hub.SubscribeUser, "ann", "a"))
	require.Equal(t, subscribedPush("a", ""), c.next())
	c.send(`{"id":2,"refresh":{"token":"ann"}}`)
	c.want(`{"id":2,"refresh":{`)
	publish(t, hub, "a", "message", "1")
	require.Equal(t, `{"push":{"channel":"a","pub":{"data":1}}}`, c.next())
}

// OnSubscribe gets the client as it is before or after a refresh.
func TestServerSideSubscriptionDuringARefresh(t *testing.T) {
	var calls atomic.Int64
	hub := newHub(t, channels.Options{Authenticate: tokens, OnSubscribe: func(_ context.Context, c channels.Client, _ string) {
		if assert.Equal(t, "ann", c.Identity.ID) {
			calls.Add(1)
		}
	}})
	c := comes(t, hub, nil)
	c.send(`{"id":1,"connect":{"token":"ann"}}`)
	c.want(`"connect":{`)
	stop := repeatedlyTo(hub, func(int) {
		hub.SubscribeUser(context.Background(), "ann", "a")
		hub.UnsubscribeUser(context.Background(), "ann", "a")
	})
	defer stop()
	for n := 0; n < 100 || calls.Load() < 100; n++ {
		c.send(`{"id":2,"refresh":{"token":"ann"}}`)
		for !strings.HasPrefix(c.next(), `{"id":2,"refresh":{`) {
		}
	}
}

// Over Protobuf it is the same.
func TestOnConnectSubscribesOverProtobuf(t *testing.T) {
	var hub *channels.Hub
	s := serve(t, channels.Options{OnConnect: func(ctx context.Context, c channels.Client) error {
		_, err := hub.SubscribeClient(ctx, c.ID, "a")
		return err
	}})
	hub = s.hub
	c := s.protobufSession()
	r := c.ask(connectCommand)
	require.Len(t, r.Connect.Subs, 1)
	require.Contains(t, r.Connect.Subs, "a")
	require.Equal(t, 1, unsubscribed(t, hub.SubscribeClient, r.Connect.Client, "b"))
	push := c.next().Push
	require.Equal(t, "b", push.Channel)
	require.NotNil(t, push.Subscribe)
	publish(t, hub, "b", "message", "1")
	require.Equal(t, "1", string(c.next().Push.Pub.Data))
}

// heldStore is a Store whose reads can be made to wait.
type heldStore struct {
	store.Store
	wait atomic.Pointer[chan struct{}]
}

func (s *heldStore) hold() (release func()) {
	c := make(chan struct{})
	s.wait.Store(&c)
	return func() { s.wait.Store(nil); close(c) }
}

func (s *heldStore) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	s.pause()
	return s.Store.Range(ctx, channel, q)
}

func (s *heldStore) Tops(ctx context.Context, names []string) ([]store.Position, error) {
	s.pause()
	return s.Store.Tops(ctx, names)
}

func (s *heldStore) Begin(ctx context.Context, channel string) (store.Position, error) {
	s.pause()
	return s.Store.Begin(ctx, channel)
}

func (s *heldStore) pause() {
	if c := s.wait.Load(); c != nil {
		<-*c
	}
}

// leave ends the connection from the client's side.
func (c *lineClient) leave() {
	c.Leave()
	c.over = true
}

// rest is what the client has got until now.
func (c *lineClient) rest() (lines []string) {
	c.t.Helper()
	c.send(`{"id":99,"rpc":{"method":"x"}}`)
	for line := c.next(); !strings.HasPrefix(line, `{"id":99,`); line = c.next() {
		lines = append(lines, line)
	}
	return lines
}
