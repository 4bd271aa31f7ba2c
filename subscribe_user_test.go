package channels_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
)

var connectCommand = &clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{}}

func TestSubscribeUser(t *testing.T) {
	ctx := context.Background()
	hub := newHub(t, channels.Options{Channel: named(map[string]channels.ChannelOptions{"h": {HistorySize: 10}}), MaxSubscriptions: 3})
	at := publishN(t, hub, "h", 1, 3)
	ann1, ann2, bob := hello(t, hub, "ann"), hello(t, hub, "ann"), hello(t, hub, "bob")
	require.Equal(t, 2, unsubscribed(t, hub.SubscribeUser, "ann", "h"))
	for _, c := range []*lineClient{ann1, ann2} {
		require.Equal(t, subscribedPush("h", `"recoverable":true,"epoch":"`+at.Epoch+`","offset":3,"positioned":true`), c.next())
	}
	require.Zero(t, unsubscribed(t, hub.SubscribeUser, "ann", "h"), "they are subscribed already")
	publishN(t, hub, "h", 4, 4)
	for _, c := range []*lineClient{ann1, ann2} {
		require.Equal(t, `{"push":{"channel":"h","pub":`+pub(4)+`}}`, c.next())
	}
	require.Equal(t, 1, unsubscribed(t, hub.SubscribeClient, ann1.ID(), "a"))
	require.Equal(t, subscribedPush("a", ""), ann1.next())
	ann1.refused(105, `"subscribe":{"channel":"a"}`)
	ann2.subscribe(2, "a")
	require.Zero(t, unsubscribed(t, hub.SubscribeUser, "ann", "a"), "one was asked for by the client itself")

	for _, who := range []string{"", "nobody", ann1.ID(), "h"} {
		require.Zero(t, unsubscribed(t, hub.SubscribeUser, who, "a"), who)
	}
	for _, who := range []string{"", "nobody", "ann"} {
		require.Zero(t, unsubscribed(t, hub.SubscribeClient, who, "a"), who)
	}
	for _, name := range []string{"", "a/b", "chat.*", ".", strings.Repeat("x", 201)} {
		n, err := hub.SubscribeUser(ctx, "ann", name)
		require.ErrorIs(t, err, channels.ErrBadChannel, name)
		require.Zero(t, n)
	}

	// One has no room.
	ann1.subscribe(3, "b")
	n, err := hub.SubscribeUser(ctx, "ann", "c")
	require.Equal(t, "too_many_subscriptions", reasonCode(err))
	require.Equal(t, 1, n)
	require.Equal(t, subscribedPush("c", ""), ann2.next())

	require.Equal(t, 2, unsubscribed(t, hub.UnsubscribeUser, "ann", "h"))
	require.Equal(t, unsubscribedPush("h"), ann1.next())
	require.Equal(t, unsubscribedPush("h"), ann2.next())
	require.Equal(t, 1, unsubscribed(t, hub.SubscribeClient, ann1.ID(), "h"))
	ann1.want(`"offset":4,"positioned":true`)
	require.Empty(t, bob.rest())

	done := background(func() error { return hub.Shutdown(ctx) })
	for _, c := range []*lineClient{ann1, ann2, bob} {
		c.wantEnd(3001, "closed")
	}
	require.NoError(t, <-done)
	_, err = hub.SubscribeUser(ctx, "ann", "a")
	require.ErrorIs(t, err, channels.ErrClosed)
	_, err = hub.SubscribeClient(ctx, ann1.ID(), "a")
	require.ErrorIs(t, err, channels.ErrClosed)
}

// Connections of one channel are left alone.
func TestSubscribeUserLeavesConnectionsOfOneChannelAlone(t *testing.T) {
	s := serve(t, channels.Options{}, asUser)
	one := s.joinAs("a", "X-User", "ann")
	stream := s.stream("a", "", "X-User", "ann")
	many := s.connected("X-User: ann")
	require.Equal(t, 1, unsubscribed(t, s.hub.SubscribeUser, "ann", "b"))
	many.want(subscribedPush("b", ""))
	for n := range 2 {
		require.Zero(t, unsubscribed(t, s.hub.SubscribeClient, s.id(n+1), "b"))
	}
	require.Equal(t, 1, subscribers(t, s.hub, "b"))
	s.publish("b", "message", `1`)
	s.publish("a", "message", `2`)
	many.want(`"pub":{"data":1}`)
	one.want("message", `2`)
	stream.want("message", `2`)
}

// Whoever connects while SubscribeUser runs is subscribed once: by OnConnect, if that
// sees what the app has written down before the call, or by the call.
func TestSubscribeUserWhileTheUserConnects(t *testing.T) {
	for range 100 {
		var member sync.Map
		var hub *channels.Hub
		hub = newHub(t, channels.Options{Channel: keep(10), Authenticate: tokens, OnConnect: func(ctx context.Context, c channels.Client) error {
			if _, ok := member.Load(c.Identity.ID); !ok {
				return nil
			}
			_, err := hub.SubscribeClient(ctx, c.ID, "h")
			return err
		}})
		c := comes(t, hub, nil)
		done := background(func() error {
			member.Store("ann", true)
			_, err := hub.SubscribeUser(context.Background(), "ann", "h")
			return err
		})
		c.send(`{"id":1,"connect":{"token":"ann"}}`)
		require.NoError(t, <-done)
		line := c.next()
		require.Contains(t, line, `{"id":1,"connect":{`)
		if !strings.Contains(line, `"subs":{"h":{`) {
			c.want(`{"push":{"channel":"h","subscribe":{`)
		}
		publishN(t, hub, "h", 1, 1)
		require.Equal(t, `{"push":{"channel":"h","pub":`+pub(1)+`}}`, c.next())
		require.Equal(t, 1, subscribers(t, hub, "h"))
	}
}

// Whatever happens at the same time, a client's last push says what holds.
func TestSubscribeUserWhileTheAppAndTheClientUnsubscribe(t *testing.T) {
	ctx := context.Background()
	m := newMany(t)
	c := hello(t, m.Hub, "ann")
	stop1 := repeatedlyTo(m.Hub, func(int) { m.UnsubscribeUser(ctx, "ann", "h") })
	stop2 := repeatedlyTo(m.Hub, func(int) { m.SubscribeUser(ctx, "ann", "h") })
	for range 200 {
		c.send(`{"id":2,"unsubscribe":{"channel":"h"}}` + "\n" + `{"id":3,"subscribe":{"channel":"h"}}`)
		for line := ""; !strings.HasPrefix(line, `{"id":3,`); {
			line = c.next()
		}
	}
	stop1()
	stop2()
	// A subscription that had to wait for the end of another may still be entering.
	until(t, "nothing is left of it", func() bool {
		m.UnsubscribeUser(ctx, "ann", "h")
		return subscribers(t, m.Hub, "h") == 0 && len(m.members("h")) == 0 && unsubscribed(t, m.SubscribeUser, "ann", "h") == 1
	})
	last := ""
	for _, line := range c.rest() {
		if strings.Contains(line, `"unsubscribe":{`) || strings.Contains(line, `"subscribe":{`) {
			last = line
		}
	}
	require.Contains(t, last, `"subscribe":{"recoverable":true`)
	require.Equal(t, 1, unsubscribed(t, m.UnsubscribeUser, "ann", "h"))
	require.Equal(t, unsubscribedPush("h"), c.next())
	require.Zero(t, subscribers(t, m.Hub, "h"))
	require.Empty(t, m.members("h"))
	require.Equal(t, 1, unsubscribed(t, m.SubscribeUser, "ann", "h"))
	c.want(`"subscribe":{"recoverable":true`)
	c.unsubscribe(4, "h")
}

func TestSubscribeUserOnAllReplicas(t *testing.T) {
	inBubble(t, 3, history, func(r *replicas) {
		var anns []*lineClient
		for i := range 3 {
			anns = append(anns, hello(r.t, r.hubs[i], "ann"))
			defer anns[i].leave()
			defer hello(r.t, r.hubs[i], "bob").leave()
		}
		at := publishN(r.t, r.hubs[0], "h", 1, 2)
		require.Equal(t, 1, unsubscribed(t, r.hubs[1].SubscribeUser, "ann", "h"), "on this replica")
		settle(time.Second)
		for _, c := range anns {
			require.Equal(t, subscribedPush("h", `"recoverable":true,"epoch":"`+at.Epoch+`","offset":2,"positioned":true`), c.next())
		}
		publishN(r.t, r.hubs[2], "h", 3, 3)
		settle(time.Second)
		for _, c := range anns {
			require.Equal(t, `{"push":{"channel":"h","pub":`+pub(3)+`}}`, c.next())
		}
		time.Sleep(2 * time.Second) // all are reported
		require.Equal(t, []string{"ann", "ann", "ann"}, r.users("h"))

		require.Zero(t, unsubscribed(t, r.hubs[0].SubscribeClient, anns[2].ID(), "a"), "it is elsewhere")
		settle(time.Second)
		require.Regexp(t, `^{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"\w+","positioned":true}}}$`, anns[2].next())
		require.Equal(t, 1, unsubscribed(t, r.hubs[0].UnsubscribeUser, "ann", "h"))
		settle(time.Second)
		for _, c := range anns {
			require.Equal(t, unsubscribedPush("h"), c.next())
		}
	})
}

func TestSubscribeUserWhereTheOthersCannotBeTold(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		ctx := context.Background()
		here, there := hello(r.t, r.hubs[0], "ann"), hello(r.t, r.hubs[1], "ann")
		defer here.leave()
		defer there.leave()
		r.meshes[0].refuses.Store(true)
		n, err := r.hubs[0].SubscribeUser(ctx, "ann", "h")
		require.ErrorIs(t, err, channels.ErrMeshUnavailable)
		require.Equal(t, 1, n, "here it is done all the same")
		here.want(`"subscribe":{`)
		n, err = r.hubs[0].SubscribeClient(ctx, here.ID(), "a")
		require.NoError(t, err, "nobody else has to be told")
		require.Equal(t, 1, n)
		r.meshes[0].refuses.Store(false)
		_, err = r.hubs[0].SubscribeUser(ctx, strings.Repeat("x", 16<<10), "h")
		require.ErrorIs(t, err, channels.ErrTooLarge)
		require.Empty(t, there.rest())
	})
}

// On a replica whose Store is slow, the app's last word holds.
func TestSubscribeUserOnASlowReplica(t *testing.T) {
	for name, c := range map[string]struct {
		words string // + and - for subscribe and unsubscribe
		n     int
	}{
		"subscribe":                {"+", 1},
		"twice":                    {"++", 1},
		"ended":                    {"+-", 0},
		"again":                    {"+-+", 1},
		"again and ended":          {"+-+-", 0},
		"again and again":          {"+-+-+", 1},
		"ended before it began":    {"-", 0},
		"ended twice, then begun":  {"--+", 1},
		"ended twice in the midst": {"+--+", 1},
	} {
		t.Run(name, func(t *testing.T) {
			held := new(heldStore)
			inBubble(t, 2, history, func(r *replicas) {
				ctx := context.Background()
				ann := hello(r.t, r.hubs[1], "ann")
				defer ann.leave()
				release := held.hold()
				for _, word := range c.words {
					do := r.hubs[0].SubscribeUser
					if word == '-' {
						do = r.hubs[0].UnsubscribeUser
					}
					_, err := do(ctx, "ann", "h")
					require.NoError(t, err)
					synctest.Wait()
				}
				require.Empty(t, ann.rest(), "its Store does not answer yet")
				release()
				settle(3 * time.Second) // it is reported
				require.Equal(t, c.n, subscribers(t, r.hubs[0], "h"))
				lines := ann.rest()
				if c.n == 1 {
					require.Contains(t, lines[len(lines)-1], `"subscribe":{"recoverable":true`)
				} else if len(lines) > 0 {
					require.Equal(t, unsubscribedPush("h"), lines[len(lines)-1])
				}
			}, func(i int, o *channels.Options) {
				if i == 1 {
					held.Store, o.Store = o.Store, held
				}
			})
		})
	}
}

// A replica whose Store fails says so in its log.
func TestSubscribeUserWhereTheStoreFails(t *testing.T) {
	var log logBuffer
	inBubble(t, 2, history, func(r *replicas) {
		ann := hello(r.t, r.hubs[1], "ann")
		defer ann.leave()
		r.store.down.Store(true)
		require.Zero(t, unsubscribed(t, r.hubs[0].SubscribeUser, "ann", "h"))
		settle(time.Minute)
		require.Contains(t, log.String(), "connections were not subscribed to a channel")
		n, err := r.hubs[1].SubscribeUser(context.Background(), "ann", "h")
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		require.Zero(t, n)
		r.store.down.Store(false)
		settle(time.Minute)
		require.Equal(t, 1, unsubscribed(t, r.hubs[1].SubscribeUser, "ann", "h"))
		ann.want(`"subscribe":{`)
	}, func(i int, o *channels.Options) {
		if i == 1 {
			o.Logger, o.PingPeriod = log.Logger(), 10*time.Minute
		}
	})
}
