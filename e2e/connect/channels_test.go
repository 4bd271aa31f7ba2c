package connect

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

func publishes(t *testing.T, k kind) {
	s := serve(t, settings{history: 10})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	from := alice.online().Client
	bob.online()
	at := alice.in("c", interest{})
	require.True(t, at.Recoverable)
	require.False(t, at.WasRecovering)
	require.Zero(t, at.Offset)
	bob.in("c", interest{})

	// The publisher hears itself, too. The app's messages have no publisher.
	body := `{"text":"안녕 🙂","n":[1,2.5,null]}`
	alice.says("c", body)
	s.say("c", `"from the app"`)
	for _, c := range []*client{alice, bob} {
		all := c.hears("c", body, `"from the app"`)
		require.Equal(t, &person{"alice", from, about("alice")}, all[0].Info)
		require.Nil(t, all[1].Info)
		require.Equal(t, []uint64{1, 2}, []uint64{all[0].Offset, all[1].Offset})
		require.Empty(t, all[0].Tags, "it has the default header")
	}

	// Without a subscription, nothing comes, and with a new one, it comes again.
	alice.unsubscribe("c")
	alice.want("unsubscribed", "c")
	bob.says("c", "1")
	bob.hears("c", "1")
	bob.unsubscribe("c")
	bob.want("unsubscribed", "c")
	bob.says("c", "2")
	bob.in("c", interest{})
	alice.says("c", "3")
	heard := bob.hears("c", "2", "3")
	require.EqualValues(t, 5, heard[1].Offset)
	require.Equal(t, 2, alice.count("publication", "c"))

	// A channel without history has no positions.
	require.False(t, alice.in("plain", interest{}).Recoverable)
	alice.says("plain", "4")
	require.Zero(t, alice.hears("plain", "4")[0].Offset)
}

func notAllowed(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.subscribe("secret", interest{})
	e := alice.want("unsubscribed", "secret")
	require.Equal(t, 103, e.Code, e.Reason)
	alice.in("quiet", interest{})
	refused(t, 103, alice.publish("quiet", "1"))
	s.say("quiet", "2")
	alice.hears("quiet", "2")
	_, err := alice.rpc("refuse", "1")
	refused(t, 103, err)
	alice.stayed()
}

// channelToken has an SDK ask the app for a channel's token, and show another one
// before it ends.
func channelToken(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("ticket", interest{Token: "ticket expired", Tokens: []string{"ticket for 1s", "ticket"}})
	basetest.Eventually(t, "another token, since the one for 1 s is about to end", func() bool { return alice.count("token", "ticket") == 2 })
	alice.says("ticket", "1")
	alice.hears("ticket", "1")
	require.Equal(t, 2, alice.count("token", "ticket"))
	require.Zero(t, alice.count("unsubscribed", "ticket"))

	alice.subscribe("ticket2", interest{Token: "ticket"})
	e := alice.want("unsubscribed", "ticket2")
	require.Equal(t, 103, e.Code, "the token is another channel's")
	alice.stayed()
}

func presence(t *testing.T, k kind) {
	s := serve(t, settings{presence: true, replicas: 2})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	first, second := alice.online().Client, bob.online().Client
	members := interest{JoinLeave: true}
	alice.in("c", members)
	bob.in("c", members)
	e, _ := alice.await(0, "join of bob", func(e event) bool { return e.Type == "join" && e.Info.User == "bob" }) // she may be told of herself, too
	require.Equal(t, person{"bob", second, about("bob")}, *e.Info)
	all, err := bob.presence("c")
	require.NoError(t, err)
	require.Equal(t, map[string]person{first: {"alice", first, about("alice")}, second: {"bob", second, about("bob")}}, all)
	n, err := bob.presenceStats("c")
	require.NoError(t, err)
	require.Equal(t, crowd{2, 2}, n)

	bob.unsubscribe("c")
	require.Equal(t, person{"bob", second, about("bob")}, *alice.want("leave", "c").Info)
	n, err = bob.presenceStats("c")
	require.NoError(t, err)
	require.Equal(t, crowd{1, 1}, n)
	bob.in("c", members)
	require.Equal(t, "bob", alice.want("join", "c").Info.User)
	bob.disconnect()
	require.Equal(t, "bob", alice.want("leave", "c").Info.User)

	_, err = alice.presence("plain")
	refused(t, 108, err)
}

func history(t *testing.T, k kind) {
	s := serve(t, settings{history: 5})
	s.say("c", numbers(1, 8)...)
	alice := s.open(k, "alice", nil)
	alice.online()
	data := func(q page) (data []string, h past) {
		t.Helper()
		h, err := alice.history("c", q)
		require.NoError(t, err)
		for _, p := range h.Publications {
			require.Equal(t, fmt.Sprint(p.Offset), p.Data)
			data = append(data, p.Data)
		}
		return data, h
	}
	none, top := data(page{})
	require.Empty(t, none, "without a limit, only the position is asked for")
	require.EqualValues(t, 7, top.Offset)
	all, _ := data(page{Limit: 100})
	require.Equal(t, numbers(3, 8), all)
	oldest, _ := data(page{Limit: 2})
	require.Equal(t, numbers(3, 5), oldest)
	newest, _ := data(page{Limit: 2, Reverse: true})
	require.Equal(t, []string{"7", "6"}, newest)
	after, _ := data(page{Limit: 2, Since: &position{4, top.Epoch}})
	require.Equal(t, numbers(5, 7), after)
	before, _ := data(page{Limit: 2, Since: &position{6, top.Epoch}, Reverse: true})
	require.Equal(t, []string{"5", "4"}, before)

	_, err := alice.history("c", page{Limit: 1, Since: &position{4, "another"}})
	refused(t, 112, err)
	_, err = alice.history("plain", page{Limit: 1})
	refused(t, 108, err)
}

// lastFirst subscribes with the newest messages, which saves a request for history.
func lastFirst(t *testing.T, k kind) {
	s := serve(t, settings{history: 10})
	s.say("c", numbers(1, 8)...)
	alice := s.open(k, "alice", nil)
	alice.online()
	e := alice.in("c", interest{Data: `{"last":3}`})
	require.False(t, e.Recovered)
	s.say("c", "8")
	all := alice.hears("c", numbers(5, 9)...)
	require.EqualValues(t, 5, all[0].Offset)

	// A reconnect goes on where it was, and gets nothing twice.
	s.road.Cut()
	alice.want("connecting", "")
	s.say("c", "9")
	require.True(t, alice.want("subscribed", "c").Recovered)
	alice.hears("c", "9")
}

func fiftyChannels(t *testing.T, k kind) {
	const n = 50
	s := serve(t, settings{history: 10, subscriptions: n})
	alice := s.open(k, "alice", nil)
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint("c", i))
	}
	for _, channel := range all { // before it connects, so that all go in one frame if the SDK can
		alice.subscribe(channel, interest{})
	}
	alice.online()
	alice.joins(all...)
	alice.subscribe("one-more", interest{})
	e := alice.want("unsubscribed", "one-more")
	require.Equal(t, 106, e.Code, e.Reason)
	for _, channel := range all {
		s.say(channel, "1")
		alice.says(channel, "2")
	}
	for _, channel := range all {
		alice.hears(channel, "1", "2")
	}

	s.road.Part()
	alice.want("connecting", "")
	for _, channel := range all {
		s.say(channel, "3", "4")
	}
	s.road.Lead(s.replicas[0].addr())
	alice.want("connected", "")
	alice.joins(all...)
	for _, channel := range all {
		alice.hears(channel, "3", "4")
		require.Equal(t, 4, alice.count("publication", channel))
	}
}

// patterns subscribes to all channels that match, on all replicas, and to those that are
// new later.
func patterns(t *testing.T, k kind) {
	s := serve(t, settings{history: 10, presence: true, replicas: 2})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	alice.online()
	from := bob.online().Client
	require.False(t, alice.in("chat.*.[a-c]", interest{}).Recoverable)
	alice.subscribe("secret.*", interest{})
	e := alice.want("unsubscribed", "secret.*")
	require.Equal(t, 103, e.Code, e.Reason)

	s.say("chat.red.a", "1") // on the other replica
	first := alice.hears("chat.*.[a-c]", "1")[0]
	require.Equal(t, map[string]string{"channel": "chat.red.a"}, first.Tags)
	require.Zero(t, first.Offset, "it has no positions")
	s.replicas[0].say("chat.blue.b", "say", "2")
	s.replicas[0].publish("chat.red.d", "3") // it does not match
	bob.says("chat.red.c", "4")
	heard := alice.hears("chat.*.[a-c]", "2", "4")
	require.Equal(t, map[string]string{"channel": "chat.blue.b", "header": "say"}, heard[0].Tags)
	require.Equal(t, map[string]string{"channel": "chat.red.c"}, heard[1].Tags)
	require.Equal(t, &person{"bob", from, about("bob")}, heard[1].Info)

	// It comes back on another replica, without what it has missed.
	s.road.Lead("127.0.0.1:1") // where nobody listens
	s.road.Cut()
	alice.want("connecting", "")
	s.say("chat.red.a", "5")
	s.road.Lead(s.replicas[1].addr())
	require.False(t, alice.want("subscribed", "chat.*.[a-c]").WasRecovering)
	s.say("chat.red.a", "6")
	alice.hears("chat.*.[a-c]", "6")

	_, err := alice.history("chat.*.[a-c]", page{Limit: 1})
	refused(t, 108, err)
	_, err = alice.presence("chat.*.[a-c]")
	refused(t, 108, err)
	refused(t, 107, alice.publish("chat.*.[a-c]", "7"))
	alice.unsubscribe("chat.*.[a-c]")
	alice.want("unsubscribed", "chat.*.[a-c]")
	alice.in("chat.red.a", interest{})
	s.say("chat.red.a", "8")
	alice.hears("chat.red.a", "8")
	require.Equal(t, 4, alice.count("publication", "chat.*.[a-c]"))
}

// subscribedByApp has the app subscribe a client, which asks for nothing: when it
// connects, and later through another replica.
func subscribedByApp(t *testing.T, k kind) {
	s := serve(t, settings{history: 10, replicas: 2, inbox: "inbox"})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	for _, c := range []*client{alice, bob} {
		c.online()
		e := c.want("subscribed", "inbox")
		require.True(t, e.Server)
		require.True(t, e.Recoverable)
		require.False(t, e.WasRecovering)
	}
	s.replicas[1].subscribe("alice", "later")
	require.True(t, alice.want("subscribed", "later").Server)
	s.say("inbox", "1")
	s.say("later", "2")
	for _, c := range []*client{alice, bob} {
		require.True(t, c.hears("inbox", "1")[0].Server)
	}
	alice.hears("later", "2")

	// It comes back to the inbox, and misses nothing.
	s.road.Part()
	alice.want("connecting", "")
	s.say("inbox", "3")
	s.road.Lead(s.replicas[0].addr())
	alice.want("connected", "")
	recovered(t, alice, "inbox")
	alice.hears("inbox", "3")

	s.replicas[1].unsubscribe("alice", "inbox")
	require.True(t, alice.want("unsubscribed", "inbox").Server)
	s.say("inbox", "4")
	bob.hears("inbox", "3", "4")
	require.Equal(t, 2, alice.count("publication", "inbox"))
	require.Zero(t, bob.count("subscribed", "later"))
}

// unsubscribed has the app take a channel from a client, which keeps the others.
func unsubscribed(t *testing.T, k kind) {
	s := serve(t, settings{history: 10})
	alice := s.open(k, "alice", nil)
	alice.online()
	alice.in("c", interest{})
	alice.in("d", interest{})
	s.replicas[0].unsubscribe("alice", "c")
	e := alice.want("unsubscribed", "c")
	require.Less(t, e.Code, 2500, "%s: from there on, an SDK subscribes again", e.Reason)
	s.say("c", "1")
	s.say("d", "2")
	alice.hears("d", "2")
	require.Zero(t, alice.count("publication", "c"))
	alice.stayed()
}
