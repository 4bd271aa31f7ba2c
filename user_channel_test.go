package channels_test

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestUserChannel(t *testing.T) {
	for user, want := range map[string]string{
		"ann": "@user:ann", "42": "@user:42", "ann@example.com": "@user:ann@example.com", "auth0|5f7c": "@user:auth0|5f7c",
		"Łódź.한": "@user:Łódź.한", "": "", ".": "@user:.", "@user:ann": "@user:@user:ann", "\ufffd": "@user:\ufffd",
		"a/b": "@user:a%2Fb", "a b": "@user:a%20b", "100%": "@user:100%25", "*": "@user:%2A", "who?": "@user:who%3F",
		"\x00\xff": "@user:%00%FF", "\u2028": "@user:%E2%80%A8",
		strings.Repeat("x", 194): "@user:" + strings.Repeat("x", 194),
	} {
		require.Equal(t, want, channels.UserChannel(user))
	}
	require.Regexp(t, `^@user:%sha256-[0-9a-f]{64}$`, channels.UserChannel(strings.Repeat("x", 195)))
	require.Regexp(t, `^@user:%sha256-[0-9a-f]{64}$`, channels.UserChannel(strings.Repeat("/", 65)))
}

// FuzzUserChannel: each user has a channel, whose name says who that is; two have two.
func FuzzUserChannel(f *testing.F) {
	for _, user := range []string{"ann", "a/b", "a%2Fb", "%sha256-", "\xff", "\u2028", strings.Repeat("ü", 99), "@user:", "."} {
		f.Add(user, "ann")
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		name := channels.UserChannel(one)
		require.Equal(t, one == other, name == channels.UserChannel(other))
		if one == "" {
			require.Empty(t, name)
			return
		}
		require.NoError(t, channels.CheckName(name))
		rest, ok := strings.CutPrefix(name, channels.UserPrefix)
		require.True(t, ok, name)
		if strings.HasPrefix(rest, "%sha256-") {
			require.Greater(t, 3*len(one)+len(channels.UserPrefix), channels.MaxNameBytes)
			return
		}
		user, err := url.PathUnescape(rest)
		require.NoError(t, err)
		require.Equal(t, one, user)
	})
}

// What is sent to a user comes to all connections of that user, by every door, and to
// no pattern of a client.
func TestSendReachesTheUserOnly(t *testing.T) {
	s := serve(t, channels.Options{}, asUser)
	ann := channels.UserChannel("ann")
	socket := s.joinAs(ann, "X-User", "ann")
	stream := s.stream(ann, "", "X-User", "ann")
	session := s.connected("X-User:ann")
	session.command(`{"id":2,"subscribe":{"channel":"` + ann + `"}}`)
	session.want(`{"id":2,"subscribe":{}}`)
	var watchers []*sessionClient
	for _, pattern := range []string{"*", "@*", "?user:*", "[@]user:ann*", `\\@user:*`, "@use*"} {
		for _, user := range []string{"bob", "ann"} {
			c := s.connected("X-User:" + user)
			c.command(`{"id":2,"subscribe":{"channel":"` + pattern + `"}}`)
			c.want(`{"id":2,"subscribe":{}}`)
			watchers = append(watchers, c)
		}
	}
	events := s.openEvents("/v1/events?pattern=*&pattern=@us?r:*", "X-User", "bob").begin()
	app, err := s.hub.SubscribePattern(t.Context(), "@user:*")
	require.NoError(t, err)
	defer app.Close()

	res, err := s.hub.Send(t.Context(), "ann", msg("mail", `{"n":1}`))
	require.NoError(t, err)
	require.Equal(t, 4, res.Receivers)
	socket.want("mail", `{"n":1}`)
	require.Equal(t, "mail", stream.next().header())
	session.want(`{"push":{"channel":"@user:ann","pub":{"data":{"n":1},"tags":{"header":"mail"}}}}`)
	m := next(t, app)
	require.Equal(t, "@user:ann", m.Channel)
	for _, c := range watchers {
		c.command(`{"id":3,"unsubscribe":{"channel":"none"}}`)
		require.Equal(t, `{"id":3,"unsubscribe":{}}`, c.reply(), "the first that it gets")
	}
	publish(t, s.hub, "@users", "mail", "2") // which is no user's
	for _, c := range append(watchers[:4:4], watchers[10:]...) {
		require.Contains(t, c.reply(), `"channel":"@users"`)
	}
	require.Contains(t, events.next().data, `"channel":"@users"`)

	_, err = s.hub.Send(t.Context(), "", msg("mail", "1"))
	require.ErrorIs(t, err, channels.ErrBadChannel)
	require.ErrorContains(t, err, "the empty user is nobody")
	_, err = s.hub.Publish(t.Context(), channels.UserPrefix, msg("mail", "1"))
	require.ErrorIs(t, err, channels.ErrBadChannel)
	require.ErrorContains(t, err, "the empty user is nobody")
	_, err = s.hub.Send(t.Context(), "ann", msg("reset", "1"))
	require.ErrorIs(t, err, channels.ErrReservedHeader)
}

// A user who was away gets what was sent meanwhile, if Options.Channel gives users'
// channels a history.
func TestSendReachesUsersWhoWereAway(t *testing.T) {
	s := serve(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, channels.UserPrefix) {
			return channels.ChannelOptions{HistorySize: 10}
		}
		return channels.ChannelOptions{}
	}}, asUser)
	for _, body := range []string{"1", "2"} {
		_, err := s.hub.Send(t.Context(), "an/n", msg("mail", body))
		require.NoError(t, err)
	}
	for _, query := range []string{"?last=2", "?since=:0"} {
		w, _, err := s.tryDial("/channel/"+url.PathEscape(channels.UserChannel("an/n"))+"/"+query, withUser("an/n"))
		require.NoError(t, err)
		w.want("mail", "1")
		w.want("mail", "2")
	}
}

// The app may subscribe whom it wants, and a user who is sent away loses the channel.
func TestUserChannelsOfTheAppsChoice(t *testing.T) {
	hub := newHub(t, channels.Options{})
	ann := channels.UserChannel("ann")
	a, b := subscribedTo(t, hub, "ann", ann), hello(t, hub, "bob")
	require.Equal(t, 1, unsubscribed(t, hub.SubscribeUser, "bob", ann))
	require.Equal(t, subscribedPush(ann, ""), b.next())
	b.refused(103, `"history":{"channel":"`+ann+`"}`)
	_, err := hub.Send(t.Context(), "ann", msg("message", "1"))
	require.NoError(t, err)
	a.want(`"data":1`)
	b.want(`"data":1`)
	require.Equal(t, 1, unsubscribed(t, hub.UnsubscribeUser, "bob", ann))
	require.Equal(t, unsubscribedPush(ann), b.next())
	b.refused(103, `"subscribe":{"channel":"`+ann+`"}`)
	require.Equal(t, 1, disconnected(t, hub.DisconnectUser, "ann"))
	a.wantEnd(3503, "disconnected")
	res, err := hub.Send(t.Context(), "ann", msg("message", "2"))
	require.NoError(t, err)
	require.Zero(t, res.Receivers)
}

// The subscription ends with the user's right to be here, and no token makes a client
// another user.
func TestUserChannelEndsWithTheIdentity(t *testing.T) {
	hub := newHub(t, channels.Options{Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
		return channels.Identity{ID: token}, nil
	}})
	c := comes(t, hub, nil)
	c.send(`{"id":1,"connect":{"token":"ann"}}`)
	c.want(`{"id":1,"connect":{`)
	c.subscribe(2, channels.UserChannel("ann"))
	c.send(`{"id":3,"refresh":{"token":"bob"}}`)
	c.wantEnd(3500, "forbidden")

	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{PingPeriod: 10 * time.Minute})
		c := comes(t, hub, &channels.Identity{ID: "ann", Expires: time.Now().Add(10 * time.Second)})
		c.send(`{"id":1,"connect":{}}`)
		c.want(`{"id":1,"connect":{`)
		c.subscribe(2, channels.UserChannel("ann"))
		time.Sleep(40 * time.Second)
		c.wantEnd(3005, "expired")
	})
}

// With PublishersIdentified, clients publish to users if Authorize says so.
func TestClientsPublishToUsersIfTheAppWantsIt(t *testing.T) {
	s := serve(t, channels.Options{
		Channel: every(channels.ChannelOptions{Publishers: channels.PublishersIdentified}),
		Authorize: func(_ context.Context, r channels.Request) error {
			if r.Action == channels.ActionPublish && r.Identity.ID != "service" {
				return channels.ErrForbidden
			}
			return nil
		},
	}, asUser)
	ann := s.joinAs(channels.UserChannel("ann"), "X-User", "ann")
	publishing := userDoors["publishing"].try
	for user, want := range map[string]string{"": "forbidden", "ann": "forbidden", "bob": "forbidden", "service": "ok"} {
		require.Equal(t, want, publishing(s, user, channels.UserChannel("ann")), user)
	}
	ann.want("h", "1")
}

// Programs behind a Bridge get and list no users' channels.
func TestBridgeKeepsUsersChannelsBack(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(10)})
	ann, bob := channels.UserChannel("ann"), channels.UserChannel("bob")
	b := hub.Bridge(channels.Identity{ID: "bob"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 9)
	all := background(func() error {
		return b.SubscribeAll(ctx, func(channel string, _ channels.Message) { got <- channel })
	})
	until(t, "the bridge listens", func() bool {
		publish(t, hub, "a", "m", "1")
		return len(got) > 0
	})
	for len(got) > 0 {
		<-got
	}
	for _, user := range []string{"ann", "bob"} {
		_, err := hub.Send(ctx, user, msg("m", "1"))
		require.NoError(t, err)
	}
	publish(t, hub, "b", "m", "1")
	require.Equal(t, "b", <-got)

	err := b.Subscribe(ctx, ann, func(channels.Message) {})
	require.ErrorIs(t, err, channels.ErrForbidden)
	for _, channel := range []string{ann, bob} {
		_, err = b.Publish(ctx, channel, msg("m", "1"))
		require.ErrorIs(t, err, channels.ErrForbidden)
	}
	_, err = b.Channel(ctx, ann)
	require.ErrorIs(t, err, channels.ErrForbidden)
	_, err = b.Channel(ctx, bob)
	require.NoError(t, err)
	page, err := b.Channels(ctx, channels.ChannelsQuery{})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, pageNames(page))
	cancel()
	require.NoError(t, <-all)
}

func pageNames(page channels.ChannelsPage) (names []string) {
	for _, c := range page.Channels {
		names = append(names, c.Name)
	}
	return names
}

// A list for clients leaves users' channels out, whatever its pages, beginning and
// cursor are; one for the app has them.
func TestListsForClientsLeaveUsersOut(t *testing.T) {
	s := serve(t, channels.Options{})
	var want, all []string
	for _, name := range []string{"!", "@", "@use", "@user", "@user:al", "@user:ann", "@user:bob", "@user:한", "@user;", "@users", "a"} {
		publish(t, s.hub, name, "m", "1")
		all = append(all, name)
		if !strings.HasPrefix(name, channels.UserPrefix) {
			want = append(want, name)
		}
	}
	for limit := 1; limit <= len(all)+1; limit++ {
		var got []string
		for cursor, pages := "", 0; ; pages++ {
			a := s.get("/v1/channel?limit=" + strconv.Itoa(limit) + "&cursor=" + cursor)
			var list struct {
				Data []struct {
					Name string `json:"channel_name"`
				}
				Next string
			}
			require.NoError(t, json.Unmarshal([]byte(a.body), &list))
			require.LessOrEqual(t, len(list.Data), limit)
			for _, c := range list.Data {
				got = append(got, c.Name)
			}
			if cursor = list.Next; cursor == "" {
				break
			}
			require.Len(t, list.Data, limit, "only the last page is shorter")
		}
		require.Equal(t, want, got, "limit %d", limit)
	}
	for prefix, want := range map[string]string{"@user:": "[]", "@user:a": "[]", "@users": `[{"channel_name":"@users","cnt":0,"rpm":1}]`} {
		require.Contains(t, s.get("/v1/channel?prefix="+url.QueryEscape(prefix)).body, `{"data":`+want, prefix)
	}
	page, err := s.hub.Channels(t.Context(), channels.ChannelsQuery{Prefix: channels.UserPrefix, Limit: 3})
	require.NoError(t, err)
	require.Len(t, page.Channels, 3)
	inside := page.Next // a cursor that a client may have seen elsewhere
	require.Contains(t, s.get("/v1/channel?limit=1&cursor="+inside).body, `[{"channel_name":"@user;"`)

	var got []string
	for c, err := range s.hub.AllChannels(t.Context(), "") {
		require.NoError(t, err)
		got = append(got, c.Name)
	}
	require.Equal(t, all, got)
}
