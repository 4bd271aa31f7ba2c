package channels_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestPresenceOverASession(t *testing.T) {
	hub := newHub(t, channels.Options{
		Channel:   named(map[string]channels.ChannelOptions{"p": {Presence: channels.PresenceList}, "forbidden": {Presence: channels.PresenceList}}),
		Authorize: forbids("forbidden"),
	})
	c := subscribedTo(t, hub, "ann", "p")
	two := subscribedTo(t, hub, "ann", "p")
	three := comes(t, hub, &channels.Identity{ID: "eve", Info: json.RawMessage(`{"n":1}`)})
	three.send(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"p"}}`)
	c.send(`{"id":2,"presence":{"channel":"p"}}`)
	require.JSONEq(t, fmt.Sprintf(`{"id":2,"presence":{"presence":{
		%q:{"user":"ann","client":%[1]q}, %q:{"user":"ann","client":%[2]q}, %q:{"user":"eve","client":%[3]q,"conn_info":{"n":1}}}}}`,
		c.ID(), two.ID(), three.ID()), c.next())
	c.send(`{"id":3,"presence_stats":{"channel":"p"}}`)
	require.Equal(t, `{"id":3,"presence_stats":{"num_clients":3,"num_users":2}}`, c.next())
	for _, request := range []string{"presence", "presence_stats"} {
		c.refused(108, `"`+request+`":{"channel":"none"}`)
		c.refused(103, `"`+request+`":{"channel":"forbidden"}`)
		c.refused(107, `"`+request+`":{"channel":"a b"}`)
	}
}

// With presence by user, all connections of a user are one client of the channel.
func TestUsersOverASession(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: people(0)})
	c := comes(t, hub, &channels.Identity{ID: "ann", Info: json.RawMessage(`{"n":1}`)})
	c.send(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"p","join_leave":true}}`)
	require.Contains(t, c.next(), `"connect"`)
	require.Contains(t, c.next(), `"subscribe"`)
	ann := `{"info":{"user":"ann","client":"ann","conn_info":{"n":1}}}`
	require.JSONEq(t, `{"push":{"channel":"p","join":`+ann+`}}`, c.next())
	tab := comes(t, hub, &channels.Identity{ID: "ann", Info: json.RawMessage(`{"n":1}`)})
	tab.send(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"p"}}`)
	eve := subscribedTo(t, hub, "eve", "p")
	require.JSONEq(t, `{"push":{"channel":"p","join":{"info":{"user":"eve","client":"eve"}}}}`, c.next())
	c.send(`{"id":3,"presence":{"channel":"p"}}`)
	require.JSONEq(t, `{"id":3,"presence":{"presence":{"ann":{"user":"ann","client":"ann","conn_info":{"n":1}},"eve":{"user":"eve","client":"eve"}}}}`, c.next())
	c.send(`{"id":4,"presence_stats":{"channel":"p"}}`)
	require.Equal(t, `{"id":4,"presence_stats":{"num_clients":2,"num_users":2}}`, c.next())
	require.JSONEq(t, `{"data":[{"id":"ann","user":"ann","info":{"n":1}},{"id":"eve","user":"eve"}],"cnt":2}`, get(hub, "/v1/channel/p/presence").Body.String())
	tab.send(`{"id":3,"unsubscribe":{"channel":"p"}}`)
	eve.send(`{"id":3,"unsubscribe":{"channel":"p"}}`)
	require.JSONEq(t, `{"push":{"channel":"p","leave":{"info":{"user":"eve","client":"eve"}}}}`, c.next())
}

func TestHistoryOverASession(t *testing.T) {
	hub := newHub(t, channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			if name == "none" {
				return channels.ChannelOptions{}
			}
			return channels.ChannelOptions{HistorySize: 5}
		},
		Authorize: forbids("forbidden"),
	})
	at := publishN(t, hub, "h", 1, 8) // 4 to 8 are kept
	publishN(t, hub, "whole", 1, 2)
	c := hello(t, hub, "ann")
	since := func(offset int) string { return fmt.Sprintf(`,"since":{"offset":%d,"epoch":%q}`, offset, at.Epoch) }
	for _, test := range []struct{ request, want string }{
		{``, ``},
		{`,"limit":-1`, pubs(4, 8)},
		{`,"limit":100000`, pubs(4, 8)},
		{`,"limit":2`, pubs(4, 5)},
		{`,"limit":2,"reverse":true`, "[" + pub(8) + "," + pub(7) + "]"},
		{`,"limit":-1` + since(6), pubs(7, 8)},
		{`,"limit":1` + since(6), pubs(7, 7)},
		{`,"limit":1` + since(8), ``},
		{`,"limit":2,"reverse":true` + since(7), "[" + pub(6) + "," + pub(5) + "]"},
		{`,"limit":2,"reverse":true` + since(1), ``},
		{`,"limit":2,"reverse":true` + since(0), ``},
	} {
		c.send(`{"id":2,"history":{"channel":"h"` + test.request + `}}`)
		require.Equal(t, `{"id":2,"history":{"publications":`+cmp.Or(test.want, "[]")+`,"epoch":"`+at.Epoch+`","offset":8}}`, c.next(), test.request)
	}
	c.refused(112, `"history":{"channel":"h","limit":1`+since(2)+`}`)
	c.refused(112, `"history":{"channel":"h","limit":1`+since(9)+`}`)
	c.refused(112, `"history":{"channel":"h","limit":1,"since":{}}`)
	c.refused(112, `"history":{"channel":"h","limit":1,"since":{"offset":7}}`)
	c.refused(112, `"history":{"channel":"h","limit":1,"since":{"offset":7,"epoch":"other"}}`)
	c.refused(112, `"history":{"channel":"h","limit":1,"reverse":true,"since":{"offset":7,"epoch":"other"}}`)
	// Before the first message there is no epoch yet: a client that asks then gets this.
	for _, name := range []string{"empty", "whole"} {
		c.send(`{"id":3,"history":{"channel":"` + name + `","limit":-1,"since":{}}}`)
		c.want(map[string]string{"empty": `{"id":3,"history":{"publications":[],"epoch":"","offset":0}}`, "whole": `"publications":` + pubs(1, 2)}[name])
	}
	c.refused(108, `"history":{"channel":"none","limit":1}`)
	c.refused(103, `"history":{"channel":"forbidden","limit":1}`)
	c.refused(107, `"history":{"channel":"a b","limit":1}`)
}

// A reply that is longer than the queue waits for the client, and does not end it.
func TestHistoryLongerThanTheQueue(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(100), MaxMessageBytes: 8 << 10, QueueBytes: 16 << 10})
	for range 20 {
		publish(t, hub, "h", "message", `"`+long(1000)+`"`)
	}
	c := hello(t, hub, "ann")
	sent := background(func() error {
		for range 5 {
			if err := c.Send(`{"id":2,"history":{"channel":"h","limit":-1}}`); err != nil {
				return err
			}
		}
		return nil
	})
	for range 5 {
		require.Greater(t, len(c.next()), 20_000)
	}
	require.NoError(t, <-sent)
	require.Zero(t, hub.Stats().SlowClosed)
}
