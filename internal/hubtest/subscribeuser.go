package hubtest

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// SubscribesUsers checks that SubscribeUser and UnsubscribeUser reach the connections
// of two hubs, each from where it was called. options returns what a hub needs to work
// with the other one.
func SubscribesUsers(t *testing.T, options func(id string) channels.Options) {
	t.Helper()
	asAnn := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: "ann"})))
		})
	}
	a, b := Serve(t, options("a"), asAnn), Serve(t, options("b"), asAnn)
	meet(t, a, b)
	clients := []*Conn{a.DialRaw(), b.DialRaw()}
	want := func(payload string) {
		t.Helper()
		for _, c := range clients {
			f, err := c.Next()
			require.NoError(t, err)
			require.Contains(t, string(f.Payload), payload)
		}
	}
	for _, c := range clients {
		c.Upgrade("/connection/websocket")
		c.Send(WSFrame(RawText, `{"id":1,"connect":{}}`))
	}
	want(`{"id":1,"connect":{`)
	for i, s := range []*Server{a, b} {
		n, err := s.Hub.SubscribeUser(t.Context(), "ann", "room")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		want(`{"push":{"channel":"room","subscribe":{}}}`)
		for _, c := range clients { // it is subscribed where it was told so
			c.Send(WSFrame(RawText, `{"id":2,"subscribe":{"channel":"room"}}`))
		}
		want(`{"id":2,"error":{"code":105`)
		n, err = []*Server{b, a}[i].Hub.UnsubscribeUser(t.Context(), "ann", "room")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		want(`{"push":{"channel":"room","unsubscribe":{"code":2000`)
	}
}

// meet waits until each of two hubs gets what the other one publishes.
func meet(t *testing.T, a, b *Server) {
	t.Helper()
	here, there := collect(t, a, "met"), collect(t, b, "met")
	basetest.Eventually(t, "the hubs have met", func() bool {
		a.PublishGo("met", "0")
		b.PublishGo("met", "1")
		return hasBoth(here) && hasBoth(there)
	})
}

// hasBoth reports whether a subscriber has got messages of both hubs. It takes them.
func hasBoth(got <-chan channels.Message) bool {
	bodies := make(map[string]bool)
	for range len(got) {
		bodies[string((<-got).Body)] = true
	}
	return bodies["0"] && bodies["1"]
}
