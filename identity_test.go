package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestHooksSeeWhoItIs(t *testing.T) {
	type secret struct{ token string } // what the app's own middleware knows
	var seen lines
	see := func(hook string, id channels.Identity, client string) {
		seen.add("%s %s %s %s", hook, id.ID, id.Value.(secret).token, client)
	}
	s := serve(t, channels.Options{
		ReplicaID: "n",
		Channel:   keeps,
		Authorize: func(ctx context.Context, r channels.Request) error {
			id, ok := channels.IdentityFrom(ctx)
			if !ok || id.ID != r.Identity.ID {
				return errors.New("the context has another identity")
			}
			see("authorize "+string(r.Action)+" "+r.Channel, r.Identity, r.Client)
			return nil
		},
		OnConnect: func(_ context.Context, c channels.Client) error {
			if !strings.HasPrefix(c.RemoteAddr, "127.0.0.1:") {
				return errors.New("no address")
			}
			see("connect "+c.Transport, c.Identity, c.ID)
			return nil
		},
		OnSubscribe: func(_ context.Context, c channels.Client, channel string) {
			see("subscribe "+channel, c.Identity, c.ID)
		},
		OnPublish: func(_ context.Context, p *channels.Publication) error {
			if !p.Network {
				seen.add("publish by the app %q %q", p.Identity.ID, p.Client)
				return nil
			}
			see("publish "+p.Channel, p.Identity, p.Client)
			return nil
		},
		OnDisconnect: func(c channels.Client, _ error) { see("disconnect", c.Identity, c.ID) },
	}, whoIs(func(r *http.Request) channels.Identity {
		return channels.Identity{ID: r.Header.Get("X-User"), Value: secret{r.Header.Get("X-Token")}}
	}))
	w := s.joinAs("p", "X-User", "ann", "X-Token", "t1")
	require.Equal(t, []string{"authorize subscribe p ann t1 ", "connect websocket ann t1 " + s.id(1), "subscribe p ann t1 " + s.id(1)}, seen.wait(t, 3))
	s.get("/v1/channel/p/presence", "X-User", "bob", "X-Token", "t2").wantOK(t, `{"data":[{"id":"`+s.id(1)+`","user":"ann"}],"cnt":1}`)
	require.Equal(t, []string{"authorize presence p bob t2 "}, seen.take())
	w.send(`{"header":"x","body":1}`)
	w.want("x", "1")
	require.Equal(t, []string{"authorize publish p ann t1 " + s.id(1), "publish p ann t1 " + s.id(1)}, seen.take())
	s.post("/v1/channel/p/publish", `{"header":"x","body":1}`, "X-User", "bob", "X-Token", "t2").wantOK(t, `{"status":"ok"}`)
	require.Equal(t, []string{"authorize publish p bob t2 ", "publish p bob t2 "}, seen.take())
	publish(t, s.hub, "p", "x", "1")
	require.Equal(t, []string{`publish by the app "" ""`}, seen.take())
	w.c.CloseNow()
	require.Equal(t, []string{"disconnect ann t1 " + s.id(1)}, seen.wait(t, 1))

	s.stream("a", "", "X-User", "eve", "X-Token", "t3")
	require.Equal(t, []string{"authorize subscribe a eve t3 ", "connect sse eve t3 " + s.id(2), "subscribe a eve t3 " + s.id(2)}, seen.wait(t, 3))
}

func TestExpiredIdentity(t *testing.T) {
	expired := whoIs(func(*http.Request) channels.Identity {
		return channels.Identity{ID: "ann", Expires: time.Now().Add(-time.Second)}
	})
	t.Run("before it asks", func(t *testing.T) {
		s := serve(t, channels.Options{}, expired) // an Authorize is not needed for it
		s.handshake("/channel/a/").wantFail(t, 401, "expired")
		s.getStream("/channel/a/").wantFail(t, 401, "expired")
		s.post("/v1/channel/a/publish", `{"header":"x","body":1}`).wantFail(t, 401, "expired")
		s.get("/v1/channel").wantFail(t, 401, "expired")
		require.Equal(t, []string{"a expired"}, outcomes(t, s.post("/v1/publish", `{"channels":["a"],"header":"x","body":1}`)))
	})
	t.Run("while connected", func(t *testing.T) {
		reasons := make(departures, 2)
		const life = 2 * time.Second // enough to connect on a busy machine
		s := serve(t, channels.Options{OnDisconnect: reasons.hook}, whoIs(func(*http.Request) channels.Identity {
			return channels.Identity{ID: "ann", Expires: time.Now().Add(life)}
		}))
		begin := time.Now()
		w, e := s.join("a", ""), s.stream("a", "")
		before, ce := w.wantClose(3000)
		require.GreaterOrEqual(t, time.Since(begin), life)
		require.Equal(t, "expired", ce.Reason)
		require.Len(t, before, 1)
		require.Equal(t, "error", before[0].Header)
		require.Equal(t, "expired", before[0].ErrorCode())
		require.ErrorIs(t, <-reasons, channels.ErrExpired)

		e.wantEnd("expired")
		require.ErrorIs(t, <-reasons, channels.ErrExpired)
	})
}

// A request whose token is still due gets to the endpoints of the client protocol
// only, and only if the hub can verify the token that is to come.
func TestTokenDue(t *testing.T) {
	due := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := channels.WithIdentity(r.Context(), channels.Identity{ID: "of an outer middleware"})
			ctx = channels.WithIdentity(channels.WithTokenDue(ctx), channels.Identity{ID: "of an inner one"})
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	doors := []string{"/connection/websocket", "/connection/sse", "/connection/http_stream", "/emulation"}
	elsewhere := []string{"/v1/channel", "/channel/a/", "/channel/emulation/", "/v1/channel/emulation", "/connection%2Fwebsocket", "/%65mulation", "/connection/websocket/../../v1/channel", "/nowhere"}
	authenticate := func(context.Context, string, json.RawMessage) (channels.Identity, error) {
		return channels.Identity{}, channels.ErrForbidden
	}
	for name, o := range map[string]channels.Options{"without Authenticate": {}, "with Authenticate": {Authenticate: authenticate}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, o, due)
			for _, path := range elsewhere {
				s.get(path).wantFail(t, 401, "no_token")
			}
			for _, path := range doors {
				code := s.get(path).code()
				require.Equal(t, o.Authenticate == nil, code == "no_token", "%s: %s", path, code)
			}
		})
	}
}

// Until its token has come, nobody else's Identity counts for a client.
func TestTokenDueHidesIdentities(t *testing.T) {
	ctx := channels.WithIdentity(t.Context(), channels.Identity{ID: "of a middleware"})
	r := channels.WithoutIdentity(httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	_, known := channels.IdentityFrom(r.Context())
	require.False(t, known)
	id, known := channels.IdentityFrom(channels.WithIdentity(r.Context(), channels.Identity{ID: "of the token"}))
	require.True(t, known)
	require.Equal(t, "of the token", id.ID)
}
