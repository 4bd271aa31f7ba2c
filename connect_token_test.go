package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/middleware"
	"github.com/channels-go/channels/store"
)

var secret = []byte("a secret that has 32 bytes or more")

// signed is a token with these claims besides the user and the time it is good for.
func signed(user string, life time.Duration, more jwt.MapClaims) string {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(life).Unix()}
	for name, value := range more {
		claims[name] = value
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		panic(err)
	}
	return token
}

// userToken is a user's own, which allows to subscribe to some channels for an hour.
func userToken(user string, patterns ...string) string {
	return signed(user, time.Hour, jwt.MapClaims{"channels": map[string]any{"subscribe": patterns}})
}

// newTokens verifies such tokens. They are good for a second more.
func newTokens(t *testing.T) *middleware.Tokens {
	t.Helper()
	tokens, err := middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}, Leeway: time.Second})
	require.NoError(t, err)
	return tokens
}

// serveTokens serves a hub to which only middleware.JWT lets anybody in.
func serveTokens(t *testing.T) (*server, *middleware.Tokens) {
	t.Helper()
	tokens := newTokens(t)
	s := serve(t, channels.Options{Authenticate: tokens.Authenticate, Authorize: tokens.Authorize,
		Channel: every(channels.ChannelOptions{Presence: channels.PresenceList})}, tokens.Handler)
	return s, tokens
}

func connectWith(token string) string { return fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, token) }

func subscribeWith(channel, token string) string {
	return fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q,"token":%q}}`, channel, token)
}

// signIn opens a connection with a token.
func (s *server) signIn(token string, header ...string) *sessionClient {
	s.t.Helper()
	c := s.session(header...)
	c.command(connectWith(token))
	c.want(`{"id":1,"connect":{`)
	return c
}

func TestTokenOfAConnection(t *testing.T) {
	s, tokens := serveTokens(t)
	require.Equal(t, http.StatusUpgradeRequired, s.get(connectPath).status, "it lacks an upgrade, and no token")
	require.Equal(t, "no_token", s.handshake("/channel/a/").code())
	ticket, err := tokens.Ticket("ann", "room", time.Now().Add(time.Hour))
	require.NoError(t, err)
	for name, token := range map[string]string{"none": "", "wrong": userToken("ann", "*") + "x", "no JWT": "x", "a ticket": ticket} {
		t.Run(name, func(t *testing.T) {
			c := s.session()
			c.command(connectWith(token) + "\n" + subscribeWith("room", ""))
			c.wantClosed(3500, "invalid token")
		})
	}
	t.Run("expired", func(t *testing.T) {
		c := s.session()
		c.command(connectWith(signed("ann", -time.Minute, nil)))
		c.wantError(1, 109)
		c.command(connectWith(userToken("ann", "room")))
		c.want(`{"id":1,"connect":{`)
	})
	t.Run("right", func(t *testing.T) {
		c := s.session()
		c.command(connectWith(userToken("ann", "room")))
		require.Regexp(t, `"expires":true,"ttl":3(59\d|60[01])`, c.reply())
		c.command(subscribeWith("room", ""))
		c.want(`{"id":2,"subscribe":{}}`)
		until(t, "ann is there", func() bool { return slices.Equal(users(t, s.hub, "room"), []string{"ann"}) })
		c.command(subscribeWith("another", ""))
		c.wantError(2, 103)
	})
	t.Run("in the request", func(t *testing.T) {
		header := "Authorization: Bearer " + userToken("bob", "bob's")
		c := s.session(header)
		c.command(`{"id":1,"connect":{}}` + "\n" + subscribeWith("bob's", ""))
		require.NotContains(t, c.reply(), "expires", "the client has no other to send")
		c.want(`{"id":2,"subscribe":{}}`)
		until(t, "bob is there", func() bool { return slices.Equal(users(t, s.hub, "bob's"), []string{"bob"}) })
		c = s.signIn(userToken("eve", "eve's"), header)
		c.command(subscribeWith("bob's", ""))
		c.wantError(2, 103)
		c.command(subscribeWith("eve's", ""))
		c.want(`{"id":2,"subscribe":{}}`)
		until(t, "what the command says goes before the request", func() bool { return slices.Equal(users(t, s.hub, "eve's"), []string{"eve"}) })
		require.Equal(t, 1, disconnect(s.hub, "bob"))
		require.Equal(t, 1, disconnect(s.hub, "eve"))
	})
}

func TestTokenThatGrantsPatterns(t *testing.T) {
	s, _ := serveTokens(t)
	c := s.signIn(userToken("ann", "chat.*", "news"))
	for _, name := range []string{"chat.1", "chat.한", "news"} {
		c.command(subscribeWith(name, ""))
		c.want(`{"id":2,"subscribe":{}}`)
	}
	for _, name := range []string{"chat", "news.1", "a.chat.1"} {
		c.command(subscribeWith(name, ""))
		c.wantError(2, 103)
	}
}

func TestTokenIsRefreshed(t *testing.T) {
	s, _ := serveTokens(t)
	c := s.signIn(userToken("ann", "kept", "lost"))
	for _, name := range []string{"kept", "lost"} {
		c.command(subscribeWith(name, ""))
		c.want(`{"id":2,"subscribe":{}}`)
	}
	refresh := func(token string) { c.command(fmt.Sprintf(`{"id":3,"refresh":{"token":%q}}`, token)) }
	refresh(userToken("ann", "kept", "lost"))
	require.Regexp(t, `^{"id":3,"refresh":{.*"expires":true,"ttl":3(59\d|60[01])}}$`, c.reply())
	for _, name := range []string{"kept", "lost"} {
		publish(t, s.hub, name, "message", "1")
		c.want(`{"push":{"channel":"` + name + `","pub":{"data":1}}}`)
	}
	refresh(signed("ann", -time.Minute, nil))
	require.Regexp(t, `^{"id":3,"error":{"code":109,"message":"[^"]+","temporary":true}}$`, c.reply(), "the SDK asks for another")
	publish(t, s.hub, "lost", "message", "2")
	c.want(`{"push":{"channel":"lost","pub":{"data":2}}}`)

	refresh(userToken("ann", "kept", "new"))
	c.want(`{"push":{"channel":"lost","unsubscribe":{"code":2000,`, `{"id":3,"refresh":{`)
	require.Empty(t, users(t, s.hub, "lost"))
	publish(t, s.hub, "lost", "message", "3")
	publish(t, s.hub, "kept", "message", "4")
	c.want(`{"push":{"channel":"kept","pub":{"data":4}}}`)
	c.command(subscribeWith("lost", ""))
	c.wantError(2, 103)
	c.command(subscribeWith("new", ""))
	c.want(`{"id":2,"subscribe":{}}`)

	refresh(userToken("eve", "kept"))
	c.wantClosed(3500, "invalid token")
	until(t, "it has left", func() bool { return len(users(t, s.hub, "kept")) == 0 })
}

func TestTicketForASubscription(t *testing.T) {
	s, tokens := serveTokens(t)
	ticket := func(user, channel string) string {
		t.Helper()
		text, err := tokens.Ticket(user, channel, time.Now().Add(10*time.Minute))
		require.NoError(t, err)
		return text
	}
	expired := signed("ann", -time.Minute, jwt.MapClaims{"channel": "room"})
	c := s.signIn(userToken("ann", "news"))
	for _, r := range []struct {
		why, token string
		code       int
	}{
		{"no ticket", "", 103}, {"another channel's", ticket("ann", "hall"), 101}, {"another user's", ticket("bob", "room"), 101},
		{"the user's own token", userToken("ann", "room"), 101}, {"expired", expired, 109}, {"not one", "x", 101},
	} {
		t.Run(r.why, func(t *testing.T) {
			c.command(subscribeWith("room", r.token))
			c.wantError(2, r.code)
		})
	}
	c.command(subscribeWith("room", ticket("ann", "room")))
	require.Regexp(t, `^{"id":2,"subscribe":{"expires":true,"ttl":(59\d|60[01])}}$`, c.reply())
	refresh := func(token string) {
		c.command(fmt.Sprintf(`{"id":3,"sub_refresh":{"channel":"room","token":%q}}`, token))
	}
	refresh(ticket("ann", "room"))
	require.Regexp(t, `^{"id":3,"sub_refresh":{"expires":true,"ttl":(59\d|60[01])}}$`, c.reply())
	refresh(expired)
	require.Regexp(t, `^{"id":3,"error":{"code":109,"message":"[^"]+","temporary":true}}$`, c.reply())
	refresh(ticket("ann", "hall"))
	c.wantError(3, 101)
	publish(t, s.hub, "room", "message", "1")
	c.want(`{"push":{"channel":"room","pub":{"data":1}}}`)

	// A refresh of the connection does not touch it: it has a right of its own.
	c.command(fmt.Sprintf(`{"id":4,"refresh":{"token":%q}}`, userToken("ann")))
	c.want(`{"id":4,"refresh":{`)
	publish(t, s.hub, "room", "message", "2")
	c.want(`{"push":{"channel":"room","pub":{"data":2}}}`)
}

// A ticket for what the user's own token allows too ends once it is the only one that
// does.
func TestTicketBesideAGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens(t)
		hub := newHub(t, channels.Options{Authenticate: tokens.Authenticate, Authorize: tokens.Authorize, PingPeriod: 10 * time.Minute})
		ticket, err := tokens.Ticket("ann", "room", time.Now().Add(10*time.Minute))
		require.NoError(t, err)
		c := comes(t, hub, nil)
		begin := time.Now()
		c.send(connectWith(userToken("ann", "room")))
		c.want(`"connect":{`)
		c.send(subscribeWith("room", ticket))
		require.Equal(t, `{"id":2,"subscribe":{}}`, c.next())
		time.Sleep(5 * time.Minute)
		c.send(fmt.Sprintf(`{"id":3,"refresh":{"token":%q}}`, userToken("ann")))
		c.want(`{"id":3,"refresh":{`)
		c.want(`{"push":{"channel":"room","unsubscribe":{"code":2501,"reason":"expired"}}}`)
		require.Equal(t, 10*time.Minute+26*time.Second, time.Since(begin))
	})
}

func TestTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens(t)
		hub := newHub(t, channels.Options{Authenticate: tokens.Authenticate, Authorize: tokens.Authorize, PingPeriod: 10 * time.Minute})
		ticket := func() string {
			text, err := tokens.Ticket("ann", "room", time.Now().Add(time.Minute))
			require.NoError(t, err)
			return text
		}
		c := comes(t, hub, nil)
		begin := time.Now()
		c.send(connectWith(signed("ann", 5*time.Minute, nil)))
		c.want(`"expires":true,"ttl":301`)
		c.send(subscribeWith("room", ticket()))
		require.Equal(t, `{"id":2,"subscribe":{"expires":true,"ttl":61}}`, c.next())
		time.Sleep(80 * time.Second) // within the time of grace
		c.send(`{"id":3,"sub_refresh":{"channel":"room","token":"` + ticket() + `"}}`)
		require.Equal(t, `{"id":3,"sub_refresh":{"expires":true,"ttl":61}}`, c.next())
		last := ticket()
		require.Equal(t, `{"push":{"channel":"room","unsubscribe":{"code":2501,"reason":"expired"}}}`, c.next())
		require.Equal(t, (80+86)*time.Second, time.Since(begin))
		c.send(subscribeWith("room", last))
		c.wantError(2, 109)
		c.send(subscribeWith("room", ticket()))
		c.want(`"ttl":61`) // the connection has stayed

		c.send(fmt.Sprintf(`{"id":4,"refresh":{"token":%q}}`, signed("ann", 3*time.Minute, nil)))
		c.want(`"ttl":181`)
		c.want(`"code":2501`)
		require.Equal(t, (166+86)*time.Second, time.Since(begin))
		c.wantEnd(3005, "expired")
		require.Equal(t, (166+181+25)*time.Second, time.Since(begin))
	})
}

// A token may be good until the year 9999, which no Duration reaches.
func TestTokensThatEndFarAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens(t)
		hub := newHub(t, channels.Options{Authenticate: tokens.Authenticate, Authorize: tokens.Authorize})
		end := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		ticket, err := tokens.Ticket("ann", "room", end)
		require.NoError(t, err)
		c := comes(t, hub, nil)
		c.send(connectWith(signed("ann", 0, jwt.MapClaims{"exp": end.Unix()})))
		c.want(`"expires":true,"ttl":2147483647`)
		c.send(subscribeWith("room", ticket))
		require.Equal(t, `{"id":2,"subscribe":{"expires":true,"ttl":2147483647}}`, c.next())
		time.Sleep(2 * time.Second)
		publish(t, hub, "room", "message", "1")
		c.want(`{"push":{"channel":"room","pub":{"data":1}}}`)
	})
}

// A token is kept as long as its subscription, so it may not have any length.
func TestTicketHasABound(t *testing.T) {
	hub := newHub(t, channels.Options{})
	c := subscribedTo(t, hub, "ann", "a")
	c.refused(107, `"subscribe":{"channel":"b","token":"`+long(8<<10+1)+`"}`)
	c.refused(107, `"subscribe":{"channel":"*","token":"`+long(8<<10+1)+`"}`)
	c.refused(107, `"sub_refresh":{"channel":"a","token":"`+long(8<<10+1)+`"}`)
	c.send(subscribeWith("b", long(8<<10)))
	c.want(`{"id":2,"subscribe":{`)
}

// Without an Authenticate nobody can verify a token, so it counts for nothing.
func TestTokenThatNobodyVerifies(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: every(channels.ChannelOptions{Presence: channels.PresenceList})})
	c := comes(t, hub, &channels.Identity{ID: "ann"})
	c.send(connectWith("x"))
	c.want(`{"id":1,"connect":{`)
	c.subscribe(2, "a")
	until(t, "ann is there", func() bool { return slices.Equal(users(t, hub, "a"), []string{"ann"}) })
}

// The data of a connect is for the app.
func TestConnectData(t *testing.T) {
	hub := newHub(t, channels.Options{Authenticate: func(_ context.Context, token string, data json.RawMessage) (channels.Identity, error) {
		return channels.Identity{ID: token + string(data)}, nil
	}})
	for token, data := range map[string]string{"a": `,"data":{"n":1}`, "": `,"data":[2]`, "c": ""} {
		c := comes(t, hub, nil)
		c.send(`{"id":1,"connect":{"token":"` + token + `"` + data + `}}`)
		c.want(`{"id":1,"connect":{`)
	}
	for _, user := range []string{`a{"n":1}`, "[2]", "c"} {
		require.Equal(t, 1, disconnect(hub, user), user)
	}
}

// Whom the app disconnects while it is asked who that is does not get in, on no
// replica: the app's answer may be from before.
func TestDisconnectWhileATokenIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verified, answer := make(chan struct{}), make(chan struct{})
		net := meshtest.NewNetwork(1)
		shared, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		hub := newHub(t, channels.Options{ReplicaID: "r0", Store: shared, Mesh: net.Join("r0"), Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
			verified <- struct{}{}
			<-answer
			return channels.Identity{ID: token}, nil
		}})
		other := newHub(t, channels.Options{ReplicaID: "r1", Store: shared, Mesh: net.Join("r1")})
		disconnectUser := map[string]func(user string){
			"here": func(user string) { disconnect(hub, user) }, "by another replica": func(user string) { disconnect(other, user); synctest.Wait() },
		}
		for name, end := range disconnectUser {
			var cs []*lineClient
			for _, user := range []string{"ann", "eve", ""} {
				c := comes(t, hub, nil)
				cs = append(cs, c)
				go c.Send(connectWith(user))
				<-verified
			}
			for _, user := range []string{"bob", "ann", "", "zoe"} {
				end(user)
			}
			for range cs {
				answer <- struct{}{}
			}
			cs[0].wantEnd(3503, "disconnected")
			for _, c := range cs[1:] {
				c.want(`{"id":1,"connect":{`)
			}
			late := comes(t, hub, nil)
			go late.Send(connectWith("ann"))
			<-verified
			answer <- struct{}{}
			late.want(`{"id":1,"connect":{`)
			require.Equal(t, 3, hub.Stats().Connections, name)
			for _, c := range append(cs[1:], late) {
				disconnect(hub, c.ID())
				c.wantEnd(3503, "disconnected")
			}
		}
	})
}
