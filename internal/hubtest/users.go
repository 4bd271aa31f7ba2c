package hubtest

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// ReachesUsers checks that what one of two hubs sends to a user comes at the other one,
// to that user only, and that each knows who is connected to the other. options returns
// what a hub needs to work with the other one.
func ReachesUsers(t *testing.T, options func(id string) channels.Options) {
	t.Helper()
	serve := func(id string) (*Server, channels.Options) {
		o := options(id)
		o.Channel = func(name string) channels.ChannelOptions {
			if strings.HasPrefix(name, channels.UserPrefix) {
				return channels.ChannelOptions{HistorySize: 100}
			}
			return channels.ChannelOptions{}
		}
		return Serve(t, o, asUser), o
	}
	a, _ := serve("a")
	b, atB := serve("b")
	meet(t, a, b)
	ann := b.DialRaw()
	ann.Upgrade("/channel/"+channels.UserChannel("ann")+"/", "X-User: ann")
	bob := b.DialRaw()
	bob.Upgrade("/connection/websocket", "X-User: bob")
	bobGets := func(part string) {
		t.Helper()
		f, err := bob.Next()
		require.NoError(t, err)
		require.Contains(t, string(f.Payload), part)
	}
	bob.Send(WSFrame(RawText, `{"id":1,"connect":{}}`))
	bobGets(`{"id":1,"connect":{`)
	bob.Send(WSFrame(RawText, `{"id":2,"subscribe":{"channel":"*"}}`+"\n"+`{"id":3,"subscribe":{"channel":"`+channels.UserChannel("ann")+`"}}`))
	bobGets(`{"id":2,"subscribe":{`)
	bobGets(`{"id":3,"error":{"code":103,`)

	every := collectPattern(t, b.Hub, "*") // which wants the same of the mesh as bob
	basetest.Eventually(t, "the pattern is known", func() bool {
		a.PublishGo("open", "1")
		return len(every.all("open")) > 0
	})
	_, err := a.Hub.Send(t.Context(), "ann", Msg("m", "0"))
	require.NoError(t, err)
	var posts []channels.Post
	for i := range 30 {
		posts = append(posts, channels.Post{Channel: channels.UserChannel("user" + strconv.Itoa(i)), Message: Msg("m", "1")},
			channels.Post{Channel: channels.UserChannel("ann"), Message: Msg("m", strconv.Itoa(i+1))})
	}
	_, err = a.Hub.PublishMany(t.Context(), posts)
	require.NoError(t, err)
	for i := range 31 {
		require.Equal(t, strconv.Itoa(i), string(ann.Message().Body))
	}
	a.PublishGo("end", "1")
	for end := false; !end; {
		f, err := bob.Next()
		require.NoError(t, err)
		end = strings.Contains(string(f.Payload), `"channel":"end"`)
		ping := string(f.Payload) == "{}"
		require.True(t, end || ping || strings.Contains(string(f.Payload), `"channel":"open"`), "%s", f.Payload)
	}

	online := func(s *Server, want ...string) {
		t.Helper()
		basetest.Eventually(t, "the hubs know who is online", func() bool {
			got, err := s.Hub.Online(context.Background(), "ann", "bob", "carl")
			if err != nil || len(got) != len(want) {
				return false
			}
			for _, user := range want {
				if !got[user] {
					return false
				}
			}
			return true
		})
	}
	online(a, "ann", "bob")
	online(b, "ann", "bob")
	ann.Close()
	online(a, "bob")
	require.NoError(t, b.Hub.Shutdown(t.Context()))
	require.NoError(t, atB.Mesh.Close())
	online(a)
}

// asUser says that the header X-User has the client's name.
func asUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: r.Header.Get("X-User")})))
	})
}
