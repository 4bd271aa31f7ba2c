package channels_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/hubtest"
)

// A userDoor is one way by which a client may try to get at a user's channel.
type userDoor struct {
	route   string // of the table of endpoints
	command string // of the client protocol, if it is one
	// try has a user try it. It returns "ok", or the code of the refusal.
	try func(s *server, user, channel string) string
	// shut says that it is shut to everybody, to the user too.
	shut bool
}

// userDoors are all doors. What is not here is in harmless.
var userDoors = map[string]userDoor{
	"a WebSocket":       {route: "channel/{name}", try: dials("")},
	"its newest":        {route: "channel/{name}", try: dials("?last=5")},
	"what was missed":   {route: "channel/{name}", try: dials("?since=:0")},
	"an event stream":   {route: "channel/{name}", try: streams("")},
	"what it missed":    {route: "channel/{name}", try: streams("", "Last-Event-ID", ":0")},
	"the newest of it":  {route: "channel/{name}", try: streams("?last=5")},
	"among several":     {route: "v1/events", try: events("?channel=NAME&last=5")},
	"beside another":    {route: "v1/events", try: events("?channel=other&channel=NAME")},
	"matched by":        {route: "v1/events", try: events("?pattern=NAME*"), shut: true},
	"on a WebSocket":    {route: "channel/{name}", try: publishesOnWebSocket, shut: true},
	"one channel":       {route: "v1/channel/{name}", try: requests("GET", "/v1/channel/NAME", "")},
	"history":           {route: "v1/channel/{name}/history", try: requests("GET", "/v1/channel/NAME/history?since=:0", "")},
	"HEAD of a history": {route: "v1/channel/{name}/history", try: heads("/v1/channel/NAME/history")},
	"presence":          {route: "v1/channel/{name}/presence", try: requests("GET", "/v1/channel/NAME/presence", "")},
	"publishing": {route: "v1/channel/{name}/publish", shut: true,
		try: requests("POST", "/v1/channel/NAME/publish", `{"header":"h","body":1}`)},
	"to several channels": {route: "v1/publish", try: requests("POST", "/v1/publish", `{"channels":["NAME"],"header":"h","body":1}`), shut: true},
	"several messages": {route: "v1/publish", shut: true,
		try: requests("POST", "/v1/publish", `{"messages":[{"channel":"NAME","header":"h","body":1}]}`)},
	"the list":              {route: "v1/channel", try: lists("?limit=1000"), shut: true},
	"the list of users":     {route: "v1/channel", try: lists("?prefix=@user:"), shut: true},
	"the list of one":       {route: "v1/channel", try: lists("?prefix=@user:ann"), shut: true},
	"the list by beginning": {route: "v1/channel", try: lists("?prefix=@"), shut: true},

	"subscribe":         {route: "connection/websocket", command: "Subscribe", try: commands(`"subscribe":{"channel":"NAME"}`)},
	"with a token":      {route: "connection/websocket", command: "Subscribe", try: commands(`"subscribe":{"channel":"NAME","token":"ann"}`)},
	"recover":           {route: "connection/websocket", command: "Subscribe", try: commands(`"subscribe":{"channel":"NAME","recover":true,"epoch":"","offset":0}`)},
	"the newest":        {route: "connection/websocket", command: "Subscribe", try: commands(`"subscribe":{"channel":"NAME","data":{"last":9}}`)},
	"a pattern":         {route: "connection/websocket", command: "Subscribe", try: commands(`"subscribe":{"channel":"NAME*"}`), shut: true},
	"who is there":      {route: "connection/websocket", command: "Presence", try: commands(`"presence":{"channel":"NAME"}`)},
	"how many":          {route: "connection/websocket", command: "PresenceStats", try: commands(`"presence_stats":{"channel":"NAME"}`)},
	"what was sent":     {route: "connection/websocket", command: "History", try: commands(`"history":{"channel":"NAME","limit":9}`)},
	"its position":      {route: "connection/websocket", command: "History", try: commands(`"history":{"channel":"NAME"}`)},
	"publish":           {route: "connection/websocket", command: "Publish", try: commands(`"publish":{"channel":"NAME","data":1}`), shut: true},
	"the method":        {route: "connection/websocket", command: "RPC", try: commands(`"rpc":{"method":"publish","data":{"channel":"NAME","body":1}}`), shut: true},
	"only here":         {route: "connection/websocket", command: "RPC", try: commands(`"rpc":{"method":"publish","data":{"channel":"NAME","body":1,"local":true}}`), shut: true},
	"a new token":       {route: "connection/websocket", command: "SubRefresh", try: commands(`"sub_refresh":{"channel":"NAME","token":"ann"}`), shut: true},
	"with connect":      {route: "connection/websocket", command: "Connect", try: connects, shut: true},
	"an SDK's stream":   {route: "connection/sse", try: firstFrame("sse")},
	"the same, by POST": {route: "connection/sse", try: firstFrame("sse, by POST")},
	"an HTTP stream":    {route: "connection/http_stream", try: firstFrame("http_stream")},
	"beside a stream":   {route: "emulation", try: emulates},
}

// harmless are the endpoints and commands that concern no channel, or only one that the
// client has.
var harmless = []string{"channels.js", "channels.d.ts", "healthz", "readyz", "v1/nodes", "Unsubscribe", "Ping", "Send", "Refresh"}

// Nobody but the user gets at a user's channel, by any door, even if Authorize is not
// set.
func TestOnlyTheUserGetsAtAUsersChannel(t *testing.T) {
	s := serve(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents})}, asUser)
	ann := channels.UserChannel("ann")
	_, err := s.hub.Send(t.Context(), "ann", msg("secret", "1"))
	require.NoError(t, err)
	subscription(t, s.hub, ann, nil)
	for name, door := range userDoors {
		t.Run(name, func(t *testing.T) {
			s := &server{s.For(t), t, s.hub, s.http, s.log}
			for _, other := range []string{"", "bob", "an", "annn", "Ann", "ann%", "*", "@user:ann", "user:ann"} {
				require.Equal(t, "forbidden", door.try(s, other, ann), "%q", other)
			}
			want := "ok"
			if door.shut {
				want = "forbidden"
			}
			require.Equal(t, want, door.try(s, "ann", ann))
		})
	}
	page := historyOf(t, s.hub, ann, channels.HistoryQuery{})
	require.Len(t, page.Messages, 1, "what clients tried to publish")
}

// A channel that only looks like a user's is nobody's.
func TestUserChannelsOfNobody(t *testing.T) {
	s := serve(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents})}, asUser)
	for _, channel := range []string{channels.UserPrefix, "@user:%61nn", "@user:ann%"} {
		for name, door := range userDoors {
			if door.command == "Subscribe" || door.route == "v1/channel/{name}/history" {
				for _, user := range []string{"", "ann", "%61nn"} {
					require.Equal(t, "forbidden", door.try(s, user, channel), "%s, %q", name, user)
				}
			}
		}
	}
}

// Authorize is still asked about the user's own channel.
func TestAuthorizeMayRefuseAUsersChannel(t *testing.T) {
	var asked lines
	s := serve(t, channels.Options{
		Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents}),
		Authorize: func(_ context.Context, r channels.Request) error {
			asked.add("%s %s by %s", r.Action, r.Channel, r.Identity.ID)
			return channels.ErrForbidden
		},
	}, asUser)
	ann := channels.UserChannel("ann")
	for name, door := range userDoors {
		if door.route == "v1/channel" { // which asks about the list
			continue
		}
		require.Equal(t, "forbidden", door.try(s, "bob", ann), name)
		require.Empty(t, slices.DeleteFunc(asked.take(), func(l string) bool { return !strings.Contains(l, ann) }), name)
		require.Equal(t, "forbidden", door.try(s, "ann", ann), name)
		if n := len(asked.take()); !door.shut {
			require.Positive(t, n, name)
		}
	}
}

// Each endpoint and each command has a door in the table, or is known to need none.
func TestUserDoorsAreComplete(t *testing.T) {
	known := slices.Clone(harmless)
	for _, door := range userDoors {
		known = append(known, door.route, door.command)
	}
	for _, route := range channels.Routes() {
		require.Contains(t, known, route, "add what it does with a channel to userDoors")
	}
	fields := reflect.TypeFor[clientproto.Command]()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.Type.Kind() == reflect.Pointer {
			require.Contains(t, known, f.Name, "add what it does with a channel to userDoors")
		}
	}
}

// --- The doors

var refusalCode = regexp.MustCompile(`"code":"?(\w+)`)

// refusedBy is the code of the refusal in an answer, in the words of HTTP.
func refusedBy(text string) string {
	switch m := refusalCode.FindStringSubmatch(text); {
	case m == nil:
		return "ok"
	case m[1] == "103":
		return "forbidden"
	default:
		return m[1]
	}
}

// about puts a channel's name into a text of JSON.
func about(text, channel string) string { return strings.ReplaceAll(text, "NAME", channel) }

func requests(method, path, body string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		return refusedBy(s.do(method, about(path, url.PathEscape(channel)), about(body, channel), "X-User", user).body)
	}
}

func heads(path string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		a := s.do("HEAD", about(path, url.PathEscape(channel)), "", "X-User", user)
		return map[int]string{200: "ok", 403: "forbidden"}[a.status]
	}
}

func dials(query string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		return letIn(s.tryDial("/channel/"+url.PathEscape(channel)+"/"+query, withUser(user)))
	}
}

func publishesOnWebSocket(s *server, user, channel string) string {
	w, resp, err := s.tryDial("/channel/"+url.PathEscape(channel)+"/", withUser(user))
	if err != nil {
		return letIn(w, resp, err)
	}
	w.send(say("1"))
	for {
		if m := w.next(); m.Header == "error" {
			return m.ErrorCode()
		} else if m.Header == "exchange" {
			return "ok"
		}
	}
}

func streams(query string, header ...string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		e := s.openStream(channel, query, append([]string{"X-User", user, "Accept", "text/event-stream"}, header...)...)
		defer e.close()
		return map[int]string{200: "ok", 403: "forbidden"}[e.resp.StatusCode]
	}
}

// events says "ok" if a stream of several channels begins and does not say that it goes
// without this one.
func events(query string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		e := s.openEvents("/v1/events"+about(query, url.QueryEscape(channel)), "X-User", user)
		defer e.close()
		if e.resp.StatusCode != 200 {
			return map[int]string{403: "forbidden"}[e.resp.StatusCode]
		}
		if m := e.begin().next().message(); m.Header == "error" {
			require.Contains(s.t, string(m.Body), channel)
			return "forbidden"
		}
		return "ok"
	}
}

// lists says "ok" if the list has the channel.
func lists(query string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		a := s.get("/v1/channel"+query, "X-User", user)
		require.Equal(s.t, 200, a.status, a.body)
		if strings.Contains(a.body, channel) {
			return "ok"
		}
		return "forbidden"
	}
}

func commands(command string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		c := s.connected("X-User:" + user)
		defer c.Close()
		c.command(`{"id":2,` + about(command, channel) + `}`)
		return refusedBy(c.reply())
	}
}

// connects says "ok" if a client gets a subscription with its connect.
func connects(s *server, user, channel string) string {
	c := s.session("X-User:" + user)
	defer c.Close()
	c.command(about(`{"id":1,"connect":{"subs":{"NAME":{"recover":true}}}}`, channel))
	reply := c.reply()
	require.Contains(s.t, reply, `"connect":{`)
	if strings.Contains(reply, channel) {
		return "ok"
	}
	return "forbidden"
}

func firstFrame(kind string) func(*server, string, string) string {
	return func(s *server, user, channel string) string {
		c := s.openSession(streamKinds[kind], `{"id":1,"connect":{}}`+"\n"+about(`{"id":2,"subscribe":{"channel":"NAME"}}`, channel), "X-User", user)
		defer c.close()
		require.NotNil(s.t, c.next().Connect)
		return ofReply(c.next())
	}
}

func emulates(s *server, user, channel string) string {
	c := s.openSession(streamKinds["http_stream"], `{"id":1,"connect":{}}`, "X-User", user)
	defer c.close()
	r := c.next()
	require.NotNil(s.t, r.Connect)
	c.session, c.node = r.Connect.Session, r.Connect.Node
	return ofReply(c.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: channel}}))
}

func ofReply(r *clientproto.Reply) string {
	if r.Error == nil {
		return "ok"
	}
	return refusedBy(fmt.Sprintf(`"code":%d`, r.Error.Code))
}

func withUser(user string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPHeader: hubtest.Pairs([]string{"X-User", user})}
}

// letIn is refusedBy for tryDial.
func letIn(w *wsClient, resp *http.Response, err error) string {
	if err == nil {
		w.c.CloseNow()
		return "ok"
	}
	if resp == nil {
		return err.Error()
	}
	b, _ := io.ReadAll(resp.Body)
	return refusedBy(string(b))
}
