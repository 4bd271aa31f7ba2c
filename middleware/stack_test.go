package middleware_test

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// everything puts all middlewares of the package around a hub, in the order
// that the documentation gives.
func everything(t *testing.T) (*site, *records) {
	rs, log := newRecords()
	r := middleware.Rate{PerSecond: 1000}
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: r, User: r, Connection: r}))
	access := middleware.Log(middleware.LogOptions{Logger: log})
	return serve(t, channels.Options{
		ReplicaID: "n", Authorize: middleware.Authorize, OnReceive: l.OnReceive, OnConnect: access.OnConnect, OnDisconnect: access.OnDisconnect,
		AllowedOrigins: []string{app},
	},
		must(middleware.TrustProxies(prefixes("127.0.0.0/8")...)), access.Handler, middleware.Recover(slog.New(slog.DiscardHandler)),
		must(middleware.CORS(middleware.CORSOptions{Origins: []string{app}})),
		apiKeys(), l.ByAddress, hs256(middleware.JWTOptions{Optional: true, Cookie: "session"}), l.ByUser,
		must(middleware.Anonymous(middleware.Grants{Subscribe: []string{"news"}}))), rs
}

func TestHubBehindEverything(t *testing.T) {
	s, rs := everything(t)
	ann := token("ann", claims{"channels": claims{"subscribe": []string{"*"}, "publish": []string{"chat.*"}}})
	w, _, err := s.dial("/channel/chat.1/", websocket.DialOptions{Subprotocols: []string{"channels", "bearer." + ann},
		HTTPHeader: http.Header{"X-Forwarded-For": {"6.6.6.6, 203.0.113.9"}, "Origin": {app}}})
	require.NoError(t, err)
	next, end := s.events("chat.1", "Cookie", "session="+ann)
	w.say(`{"header":"x","body":1}`)
	require.Equal(t, `{"header":"x","body":1}`, next())
	require.Equal(t, 200, s.publish("chat.1", "2", "Authorization", "Bearer "+ann).status)
	w.want(`{"header":"x","body":2}`)
	require.Equal(t, `{"header":"x","body":2}`, next(), "each message is flushed at once")
	require.Equal(t, 403, s.publish("chat.1", "3", "X-API-Key", billingKey).status)
	require.Equal(t, 200, s.publish("orders.1", "3", "X-API-Key", billingKey).status)
	require.Equal(t, 403, s.publish("chat.1", "3").status)
	require.Equal(t, 200, s.do("GET", "/readyz", "").status)
	end()
	w.c.Close(websocket.StatusNormalClosure, "")
	var ws, stream map[string]any
	for n := 1; ws == nil || stream == nil; n++ {
		switch r := rs.wait(t, n); {
		case r["msg"] == "websocket":
			ws = r
		case r["path"] == "/channel/chat.1/":
			stream = r
		}
	}
	require.Equal(t, "203.0.113.9:0", ws["remote"])
	require.Equal(t, "ann", ws["user"])
	require.Equal(t, 3.0, ws["messages_out"])
	require.Equal(t, "ann", stream["user"])
}

// The hub is mounted below a path, with http.StripPrefix around everything.
func TestMountedBelowAPath(t *testing.T) {
	hub := must(channels.New(channels.Options{Logger: slog.New(slog.DiscardHandler)}))
	defer hub.Shutdown(t.Context())
	h := http.StripPrefix("/rt", hs256(middleware.JWTOptions{})(hub.Handler()))
	require.Equal(t, 200, try(h, "GET", "/rt/healthz", "").status)
	require.Equal(t, 401, try(h, "GET", "/rt/channel/a/", "").status)
}

// bare is the smallest ResponseWriter, to which each test adds one method.
type bare struct{ w *httptest.ResponseRecorder }

func (b bare) Header() http.Header              { return b.w.Header() }
func (b bare) Write(p []byte) (int, error)      { return b.w.Write(p) }
func (b bare) WriteHeader(status int)           { b.w.WriteHeader(status) }
func (b bare) SetWriteDeadline(time.Time) error { return nil }

type unwrapping struct {
	http.ResponseWriter
}

func (u unwrapping) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// A wrapper offers only what the wrapped writer does: a hub that looks for
// Hijack must not find one that fails.
func TestWrappersOfferWhatTheWriterDoes(t *testing.T) {
	for name, m := range map[string]wrapper{
		"Log":     middleware.Log(middleware.LogOptions{Logger: slog.New(slog.DiscardHandler)}).Handler,
		"Recover": middleware.Recover(nil),
	} {
		t.Run(name, func(t *testing.T) {
			check := func(w http.ResponseWriter, flush, hijack bool) {
				t.Helper()
				m(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
					_, ok := got.(http.Flusher)
					require.Equal(t, flush, ok)
					_, ok = got.(http.Hijacker)
					require.Equal(t, hijack, ok)
					if !hijack {
						require.ErrorIs(t, func() error { _, _, err := http.NewResponseController(got).Hijack(); return err }(), http.ErrNotSupported)
					}
					require.NoError(t, http.NewResponseController(got).SetWriteDeadline(time.Now().Add(time.Hour)))
				})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			}
			w := bare{httptest.NewRecorder()}
			check(w, false, false)
			check(struct {
				bare
				http.Flusher
			}{w, w.w}, true, false)
			check(unwrapping{struct {
				bare
				http.Flusher
			}{w, w.w}}, true, false)
			check(struct {
				bare
				http.Hijacker
			}{bare: w}, false, true)
			check(unwrapping{struct {
				bare
				http.Flusher
				http.Hijacker
			}{bare: w, Flusher: w.w}}, true, true)
		})
	}
}

// cannotHijack has a Hijack that always fails.
type cannotHijack struct{ unwrapping }

func (cannotHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

// If the Hijack of a wrapper fails, the WebSocket still works and is still
// logged, whether the wrapper is outside or inside the log.
func TestWrappersWhoseHijackFails(t *testing.T) {
	failing := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(cannotHijack{unwrapping{w}}, r) })
	}
	rs, log := newRecords()
	access := middleware.Log(middleware.LogOptions{Logger: log})
	s := serve(t, channels.Options{OnConnect: access.OnConnect, OnDisconnect: access.OnDisconnect},
		failing, access.Handler, failing, middleware.Recover(log), failing)
	w := s.join("a")
	w.send(`{"header":"x","body":1}`)
	w.want(`{"header":"x","body":1}`)
	w.c.CloseNow()
	r := rs.wait(t, 1)
	require.Equal(t, "websocket", r["msg"])
	require.Equal(t, 1.0, r["messages_in"])
	require.Zero(t, access.Open())
}

// CloseNotify is the server's, however many wrappers are in between. It can be
// called even if the server has none.
func TestWrappersPassOnCloseNotify(t *testing.T) {
	closes := make(chan bool)
	for _, m := range []wrapper{middleware.Log(middleware.LogOptions{Logger: slog.New(slog.DiscardHandler)}).Handler, middleware.Recover(nil)} {
		ask := func(w http.ResponseWriter) (got <-chan bool) {
			m(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				got = w.(interface{ CloseNotify() <-chan bool }).CloseNotify()
			})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			return got
		}
		w := bare{httptest.NewRecorder()}
		require.Nil(t, ask(w))
		require.Equal(t, (<-chan bool)(closes), ask(unwrapping{closeNotifier{w, closes}}))
	}
}

type closeNotifier struct {
	bare
	c chan bool
}

func (c closeNotifier) CloseNotify() <-chan bool { return c.c }

// The wrappers send a file as the server would, and count its bytes.
func TestWrappersServeFiles(t *testing.T) {
	rs, log := newRecords()
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte(strings.Repeat("x", 100_000)), 0o600))
	files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })
	s := serveOnly(t, stack(files, middleware.Log(middleware.LogOptions{Logger: log}).Handler, middleware.Recover(log)))
	require.Len(t, s.do("GET", "/", "").body, 100_000)
	require.Equal(t, 100_000.0, rs.wait(t, 1)["bytes_out"])
}
