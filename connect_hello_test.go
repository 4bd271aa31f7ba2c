package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// What is no proper frame of commands ends the connection with 3501, and the client
// does not come back with the same.
func TestConnectBrokenFrames(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: 1 << 10})
	const connect = `{"id":1,"connect":{}}` + "\n"
	for name, frame := range map[string]string{
		"unmasked":                    string(frameHeader(rawText, 0, 2)) + "{}",
		"no JSON":                     wsFrame(finBit|opText, `{`),
		"nothing":                     wsFrame(finBit|opText, ``),
		"binary":                      wsFrame(finBit|opBinary, `{"id":1,"connect":{}}`),
		"not UTF-8":                   wsFrame(finBit|opText, "{\"id\":1,\"connect\":{\"token\":\"\xff\"}}"),
		"a command before connect":    wsFrame(finBit|opText, `{"id":1,"subscribe":{"channel":"a"}}`),
		"connect without an id":       wsFrame(finBit|opText, `{"connect":{}}`),
		"connect twice":               wsFrame(finBit|opText, connect+`{"id":2,"connect":{}}`),
		"a command without an id":     wsFrame(finBit|opText, connect+`{"subscribe":{"channel":"a"}}`),
		"a field of the wrong type":   wsFrame(finBit|opText, connect+`{"id":2,"subscribe":{"channel":1}}`),
		"an id that is not a number":  wsFrame(finBit|opText, `{"id":"1","connect":{}}`),
		"more commands than allowed":  wsFrame(finBit|opText, strings.Repeat("{}\n", 1025)),
		"a good command and a broken": wsFrame(finBit|opText, connect+`{"id":2,`),
	} {
		t.Run(name, func(t *testing.T) {
			c := s.session()
			c.Send(frame)
			c.wantClosed(3501, "bad request")
		})
	}
	c := s.protobufSession()
	c.command(`{"id":1,"connect":{}}`)
	c.wantClosed(3501, "bad request")
	c = s.protobufSession()
	c.Send(wsFrame(finBit|opBinary, "\x05\xff\xff\xff\xff\xff"))
	c.wantClosed(3501, "bad request")
	c = s.session()
	c.command(`{"id":1,"connect":{"token":"` + long(1<<20) + `"}}`)
	c.wantClosed(1009, "read limited at 900097 bytes")
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
}

func TestConnectIsNoPage(t *testing.T) {
	s := serve(t, channels.Options{})
	a := s.get(connectPath)
	require.Equal(t, http.StatusUpgradeRequired, a.status)
	require.Equal(t, "upgrade_required", a.code())
	require.Equal(t, "bad_origin", s.handshake(connectPath, "Origin: https://evil.example").code())
	require.NoError(t, s.hub.Drain(ctxT(t)))
	a = s.handshake(connectPath, "Origin: http://x")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "draining", a.code())
}

// A connection counts from its handshake on.
func TestConnectCountsAgainstTheLimit(t *testing.T) {
	s := serve(t, channels.Options{MaxConnections: 1})
	c := s.session()
	require.Equal(t, "too_many_connections", s.handshake(connectPath).code())
	c.Close()
	until(t, "there is room again", func() bool { return s.handshake(connectPath).status == http.StatusSwitchingProtocols })
}

func TestConnectHasToComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{})
		c := comes(t, hub, nil)
		begin := time.Now()
		c.wantEnd(3502, "none")
		require.InDelta(t, 10.5, time.Since(begin).Seconds(), 0.6)
		require.Zero(t, disconnect(hub, c.ID()), "nothing is left of it")
		stays := hello(t, hub, "ann")
		require.Equal(t, "{}", stays.nextLine(), "a ping, long after")
		require.Equal(t, 1, hub.Stats().Connections)
	})
}

// A slow answer of the app is not the client's fault.
func TestConnectMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Authenticate: func(context.Context, string, json.RawMessage) (channels.Identity, error) {
			time.Sleep(15 * time.Second)
			return channels.Identity{ID: "ann"}, nil
		}})
		c := comes(t, hub, nil)
		c.send(`{"id":1,"connect":{"token":"x"}}`)
		c.want(`{"id":1,"connect":{`)
	})
}

// tokens is an Authenticate for some words.
func tokens(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
	switch token {
	case "ann", "eve":
		return channels.Identity{ID: token}, nil
	case "minute":
		return channels.Identity{ID: "ann", Expires: time.Now().Add(time.Minute)}, nil
	case "over":
		return channels.Identity{ID: "ann", Expires: time.Now().Add(-time.Second)}, nil
	case "old":
		return channels.Identity{}, channels.ErrExpired
	case "later":
		return channels.Identity{}, channels.ErrStoreUnavailable
	case "often":
		return channels.Identity{}, &channels.Error{Code: "rate_limited", Status: 429, Message: "too often"}
	case "panic":
		panic("test")
	}
	return channels.Identity{}, errors.New("this is logged")
}

func TestConnectAsksWhoTheClientIs(t *testing.T) {
	s := serve(t, channels.Options{Authenticate: tokens, Channel: every(channels.ChannelOptions{Presence: channels.PresenceList})})
	connect := func(token string) *sessionClient {
		c := s.session()
		c.command(`{"id":1,"connect":{"token":"` + token + `"}}`)
		return c
	}
	c := connect("ann")
	c.want(`"connect":{`)
	c.command(`{"id":2,"subscribe":{"channel":"a"}}`)
	c.want(`"subscribe":{}`)
	until(t, "ann is there", func() bool { return slices.Equal(users(t, s.hub, "a"), []string{"ann"}) })
	require.Equal(t, 1, disconnect(s.hub, "ann"))
	c.wantClosed(3503, "force disconnect")
	until(t, "nothing is left of it", func() bool { return disconnect(s.hub, "ann") == 0 })

	for _, token := range []string{"old", "over"} {
		c = connect(token)
		c.wantError(1, 109)
		c.command(`{"id":2,"connect":{"token":"eve"}}`)
		c.want(`{"id":2,"connect":{`)
	}
	c = connect("later")
	require.Equal(t, `{"id":1,"error":{"code":100,"message":"the store does not answer; try again in a moment","temporary":true}}`, c.reply())
	c = connect("often")
	require.Equal(t, `{"id":1,"error":{"code":111,"message":"too often","temporary":true}}`, c.reply())
	for _, token := range []string{"", "mallory"} {
		connect(token).wantClosed(3500, "invalid token")
	}
	connect("panic").wantClosed(3004, "internal server error")
	require.Contains(t, s.log.String(), "panic in Authenticate")
}

// Who keeps trying is charged for it: to verify a token costs time.
func TestConnectAgainIsCharged(t *testing.T) {
	var asked lines
	hub := newHub(t, channels.Options{
		Authenticate: func(ctx context.Context, token string, data json.RawMessage) (channels.Identity, error) {
			asked.add("authenticate")
			return tokens(ctx, token, data)
		},
		OnReceive: func(context.Context, channels.Client) error {
			asked.add("receive")
			return &channels.Error{Code: "rate_limited", Status: 429, Message: "too often"}
		},
	})
	c := comes(t, hub, nil)
	c.send(connectWith("old"))
	c.wantError(1, 109)
	c.send(connectWith("old"))
	c.wantError(1, 111)
	require.Equal(t, []string{"authenticate", "receive"}, asked.take())
}

// Who has no good token does not stay by trying again and again.
func TestConnectMayBeTriedAFewTimes(t *testing.T) {
	for token, code := range map[string]int{"old": 3502, "later": 3004} {
		asked := 0
		hub := newHub(t, channels.Options{Authenticate: func(ctx context.Context, token string, data json.RawMessage) (channels.Identity, error) {
			asked++
			return tokens(ctx, token, data)
		}})
		c := comes(t, hub, nil)
		c.send(strings.Repeat(connectWith(token)+"\n", 100))
		c.wantEnd(code, "none")
		require.Equal(t, 5, asked)
	}
}

func TestConnectNeedsNoTokenBehindAMiddleware(t *testing.T) {
	s := serve(t, channels.Options{
		Authenticate: func(context.Context, string, json.RawMessage) (channels.Identity, error) { panic("it is not asked") },
		OnConnect: func(_ context.Context, c channels.Client) error {
			if c.Identity.ID != "ann" || c.Transport != "websocket" {
				return channels.ErrForbidden
			}
			return nil
		},
	}, whoIs(func(r *http.Request) channels.Identity { return channels.Identity{ID: r.Header.Get("X-User")} }))
	s.connected("X-User: ann")
	c := s.session("X-User: eve")
	c.command(`{"id":1,"connect":{}}`)
	c.wantError(1, 103)
}

// OnDisconnect follows OnConnect if that has let the client in, and only then.
func TestConnectHooks(t *testing.T) {
	var calls lines
	hub := newHub(t, channels.Options{
		OnConnect: func(ctx context.Context, c channels.Client) error {
			id, _ := channels.IdentityFrom(ctx)
			calls.add("connect %s %s", c.Identity.ID, id.ID)
			if c.Identity.ID == "eve" {
				return channels.ErrForbidden
			}
			return nil
		},
		OnSubscribe: func(_ context.Context, c channels.Client, channel string) { calls.add("subscribe %s", channel) },
		OnReceive:   func(context.Context, channels.Client) error { calls.add("receive"); return nil },
		OnDisconnect: func(c channels.Client, cause error) {
			calls.add("disconnect %s %d", reasonCode(cause), c.Received.Messages)
		},
	})
	c := subscribedTo(t, hub, "ann", "a")
	require.Equal(t, 1, disconnect(hub, "ann"))
	c.wantEnd(3503, "disconnected")
	require.Equal(t, []string{"connect ann ann", "receive", "subscribe a", "disconnect disconnected 2"}, calls.take())
	c = comes(t, hub, &channels.Identity{ID: "eve"})
	c.send(`{"id":1,"connect":{}}`)
	c.wantError(1, 103)
	require.Equal(t, 1, disconnect(hub, "eve"))
	c.wantEnd(3503, "disconnected")
	require.Equal(t, []string{"connect eve eve"}, calls.take())
	require.Zero(t, hub.Stats().Connections)
}

// Who is ended while the app is asked does not get in.
func TestConnectIsEndedWhileTheAppIsAsked(t *testing.T) {
	for name, e := range map[string]struct {
		code  int
		cause string
		end   func(h *channels.Hub, id string)
	}{
		"by user":  {3503, "disconnected", func(h *channels.Hub, _ string) { disconnect(h, "ann") }},
		"by id":    {3503, "disconnected", func(h *channels.Hub, id string) { disconnect(h, id) }},
		"drain":    {3001, "draining", func(h *channels.Hub, _ string) { go h.Drain(context.Background()) }},
		"shutdown": {3001, "closed", func(h *channels.Hub, _ string) { go h.Shutdown(context.Background()) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := newHub(t, channels.Options{
					Authenticate: tokens,
					OnConnect:    func(ctx context.Context, _ channels.Client) error { <-ctx.Done(); return nil },
					OnDisconnect: func(_ channels.Client, cause error) { require.Equal(t, e.cause, reasonCode(cause)) },
				})
				c := comes(t, hub, nil)
				sent := background(func() error { return c.Send(`{"id":1,"connect":{"token":"ann"}}`) })
				synctest.Wait()
				e.end(hub, c.ID())
				require.NoError(t, <-sent)
				c.wantEnd(e.code, e.cause)
				require.Zero(t, hub.Stats().Connections)
			})
		})
	}
}

// The same of a client that is let in already, and subscribes.
func TestConnectIsEndedWhileItSubscribes(t *testing.T) {
	for _, channel := range []string{"a", "a*"} {
		for name, end := range map[string]func(h *channels.Hub){
			"by user": func(h *channels.Hub) { disconnect(h, "ann") },
			"drain":   func(h *channels.Hub) { go h.Drain(context.Background()) },
		} {
			t.Run(name+" "+channel, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asked := make(chan context.Context, 1)
					hub := newHub(t, channels.Options{
						DrainTime:    -1,
						Authenticate: tokens,
						Authorize:    func(ctx context.Context, _ channels.Request) error { asked <- ctx; <-ctx.Done(); return nil },
					})
					c := comes(t, hub, nil)
					require.NoError(t, c.Send(`{"id":1,"connect":{"token":"ann"}}`))
					sent := background(func() error { return c.Send(`{"id":2,"subscribe":{"channel":"` + channel + `"}}`) })
					ctx := <-asked
					end(hub)
					synctest.Wait()
					require.ErrorIs(t, ctx.Err(), context.Canceled)
					require.NoError(t, <-sent)
					c.readToEnd()
					require.Zero(t, hub.Stats().Connections)
				})
			})
		}
	}
}

func TestConnectExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Authenticate: tokens, PingPeriod: 10 * time.Minute})
		connect := func() *lineClient {
			c := comes(t, hub, nil)
			c.send(`{"id":1,"connect":{"token":"minute"}}`)
			c.want(`"expires":true,"ttl":60`)
			return c
		}
		begin := time.Now()
		c := connect()
		time.Sleep(time.Minute + 20*time.Second)
		c.subscribe(2, "a") // within the time of grace
		c.wantEnd(3005, "expired")
		require.Equal(t, 85*time.Second, time.Since(begin))

		c = connect()
		time.Sleep(50 * time.Second)
		for range 5 {
			c.send(`{"id":2,"refresh":{"token":"minute"}}`)
			c.want(`{"id":2,"refresh":{"client":"` + c.ID() + `","version":"channels 2","expires":true,"ttl":60}}`)
			time.Sleep(80 * time.Second)
		}
		c.send(`{"id":3,"refresh":{"token":"old"}}`)
		c.wantError(3, 109)
		c.send(`{"id":4,"refresh":{"token":"over"}}`)
		c.wantError(4, 109)
		c.send(`{"id":5,"refresh":{"token":"later"}}`)
		c.wantError(5, 100)
		c.send(`{"id":6,"refresh":{"token":"ann"}}`)
		require.NotContains(t, c.next(), "expires")
		time.Sleep(2 * time.Minute)
		c.send(`{"id":7,"refresh":{"token":"eve"}}`)
		c.wantEnd(3500, "forbidden")

		c = connect()
		c.send(`{"id":8,"refresh":{"token":"mallory"}}`)
		c.wantEnd(3500, "forbidden")
	})
}

func TestConnectRefreshWithoutAuthenticate(t *testing.T) {
	c := hello(t, newHub(t, channels.Options{}), "ann")
	c.refused(108, `"refresh":{"token":"x"}`)
}

// After a refresh, what the client may do now holds for what it is subscribed to.
func TestConnectRefreshAsksAgain(t *testing.T) {
	rights := map[string]bool{"a": true, "b": true, "broken": true, "!": true, "its own": true}
	var asked lines
	hub := newHub(t, channels.Options{Authenticate: tokens, Authorize: func(_ context.Context, r channels.Request) error {
		asked.add("%s%s", r.Channel, r.Token)
		switch {
		case rights[r.Channel] || r.Token != "" && rights[r.Token]:
			if r.Token == "its own" {
				r.Until(time.Now().Add(time.Minute))
			}
			return nil
		case r.Channel == "broken":
			return channels.ErrStoreUnavailable
		}
		return channels.ErrForbidden
	}})
	c := comes(t, hub, nil)
	c.send(`{"id":1,"connect":{"token":"ann"}}`)
	c.want(`"connect":{`)
	for _, name := range []string{"a", "b", "broken"} {
		c.subscribe(2, name)
	}
	c.send(`{"id":3,"subscribe":{"channel":"c","token":"!"}}`)
	c.want(`{"id":3,"subscribe":{}}`)
	c.send(`{"id":3,"subscribe":{"channel":"d","token":"its own"}}`)
	c.want(`{"id":3,"subscribe":{"expires":true,"ttl":60}}`)
	require.Equal(t, []string{"a", "b", "broken", "c!", "dits own"}, asked.take())
	clear(rights)
	rights["a"], rights["!"] = true, true
	c.send(`{"id":4,"refresh":{"token":"ann"}}`)
	got := []string{c.next(), c.next(), c.next()}
	require.Contains(t, got, `{"push":{"channel":"b","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)
	require.Contains(t, got, `{"push":{"channel":"broken","unsubscribe":{"code":2501,"reason":"expired"}}}`)
	require.ElementsMatch(t, []string{"a", "b", "broken", "c!"}, asked.take(), "d depends on its own token alone")
	publish(t, hub, "b", "message", "1")
	publish(t, hub, "c", "message", "2")
	publish(t, hub, "d", "message", "3")
	require.Equal(t, `{"push":{"channel":"c","pub":{"data":2}}}`, c.next())
	require.Equal(t, `{"push":{"channel":"d","pub":{"data":3}}}`, c.next())
	delete(rights, "!")
	c.send(`{"id":5,"refresh":{"token":"ann"}}`)
	c.want(`{"push":{"channel":"c","unsubscribe":{"code":2000,`, `{"id":5,"refresh":{`)
}

// A right that ends and came without a token is the connection's, and is renewed with it.
func TestConnectRefreshRenewsRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Authenticate: tokens, PingPeriod: 10 * time.Minute, Authorize: func(_ context.Context, r channels.Request) error {
			r.Until(time.Now().Add(time.Minute))
			return nil
		}})
		c := comes(t, hub, nil)
		begin := time.Now()
		c.send(`{"id":1,"connect":{"token":"ann"}}`)
		c.want(`"connect":{`)
		c.send(`{"id":2,"subscribe":{"channel":"a"}}`)
		require.Equal(t, `{"id":2,"subscribe":{}}`, c.next(), "the client could do nothing about its end")
		time.Sleep(time.Minute)
		c.send(`{"id":3,"refresh":{"token":"ann"}}`)
		c.want(`{"id":3,"refresh":{`)
		require.Equal(t, `{"push":{"channel":"a","unsubscribe":{"code":2501,"reason":"expired"}}}`, c.next())
		require.Equal(t, 2*time.Minute+25*time.Second, time.Since(begin))
		c.subscribe(4, "a")
	})
}

func TestConnectPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{PingPeriod: 10 * time.Second})
		c := hello(t, hub, "ann")
		require.Equal(t, "{}", c.nextLine())
		begin := time.Now()
		for i := range 5 {
			c.send("{}")
			require.Equal(t, "{}", c.nextLine())
			require.Equal(t, time.Duration(i+1)*10*time.Second, time.Since(begin))
		}
		c.wantEnd(3012, "none")
		require.Equal(t, time.Minute, time.Since(begin))
	})
}
