package interop_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gincors "github.com/gin-contrib/cors"
	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"
	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"
	echomw "github.com/labstack/echo/v4/middleware"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	ours "github.com/channels-go/channels/middleware"
)

const serverKey = "server-key-0123456789"

// of returns the records of a kind, "request" or "websocket", in a log in JSON.
func of(log *basetest.Log, kind string) (rs []map[string]any) {
	for _, r := range log.Records() {
		if r["msg"] == kind {
			rs = append(rs, r)
		}
	}
	return rs
}

// all returns the options of a hub with this module's middleware, and the
// middleware in the documented order.
func all(t *testing.T) (channels.Options, func(http.Handler) http.Handler, *basetest.Log) {
	t.Helper()
	records := new(basetest.Log)
	log := slog.New(slog.NewJSONHandler(records, nil))
	rate := ours.Rate{PerSecond: 1000}
	limiter, err := ours.RateLimit(ours.RateLimitOptions{Address: rate, User: rate, Connection: rate})
	require.NoError(t, err)
	withCORS, err := ours.CORS(ours.CORSOptions{Origins: []string{app}})
	require.NoError(t, err)
	keys, err := ours.APIKey(ours.APIKeyOptions{Limiter: limiter, Keys: []ours.ServerKey{{Name: "server", Key: serverKey, Grants: ours.Grants{Publish: []string{"*"}}}}})
	require.NoError(t, err)
	tokens, err := ours.JWT(ours.JWTOptions{Keys: []ours.JWTKey{{Key: secret}}})
	require.NoError(t, err)
	access := ours.Log(ours.LogOptions{Logger: log})
	o := options()
	o.Authenticate, o.Authorize = tokens.Authenticate, tokens.Authorize
	o.OnReceive = limiter.OnReceive
	o.OnConnect, o.OnDisconnect = access.OnConnect, access.OnDisconnect
	return o, func(h http.Handler) http.Handler {
		return access.Handler(ours.Recover(log)(withCORS(keys(limiter.ByAddress(tokens.Handler(limiter.ByUser(h)))))))
	}, records
}

var secret = []byte("a secret of at least 32 bytes, for tests")

// All of this module's middleware works around an app's router and inside it,
// together with the router's own middleware.
func TestOursAroundAndInsideOfRouters(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix(),
		"channels": ours.Grants{Subscribe: []string{"*"}, Publish: []string{"*"}}}).SignedString(secret)
	require.NoError(t, err)
	none := func(h http.Handler) http.Handler { return h }
	for name, router := range map[string]func(rt http.Handler) http.Handler{
		"chi": func(rt http.Handler) http.Handler {
			r := chi.NewRouter()
			r.Use(middleware.RequestID, middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: discard{}}), middleware.Recoverer, middleware.Compress(5, "text/event-stream", "application/json"),
				cors.Handler(cors.Options{AllowedOrigins: []string{app}, AllowCredentials: true}))
			r.Mount("/rt", rt)
			return r
		},
		"gin": func(rt http.Handler) http.Handler {
			r := gin.New()
			r.Use(gin.LoggerWithWriter(io.Discard), gin.RecoveryWithWriter(io.Discard), gincors.New(gincors.Config{AllowOrigins: []string{app}, AllowCredentials: true}), gzip.Gzip(gzip.DefaultCompression))
			r.Any("/rt/*path", gin.WrapH(rt))
			return r
		},
		"echo": func(rt http.Handler) http.Handler {
			e := echo.New()
			e.Use(echomw.RequestID(), echomw.Recover(), echomw.CORSWithConfig(echomw.CORSConfig{AllowOrigins: []string{app}, AllowCredentials: true}), echomw.Gzip(), echomw.Secure())
			e.Any("/rt/*", echo.WrapHandler(rt))
			return e
		},
	} {
		for place, outside := range map[string]bool{"around": true, "inside": false} {
			t.Run(name+"/"+place, func(t *testing.T) {
				o, stack, records := all(t)
				around, inside := none, stack
				if outside {
					around, inside = stack, none
				}
				var h http.Handler
				t.Run("used", func(t *testing.T) { // and shuts down the hub
					check(t, o, func(rt http.Handler) http.Handler {
						h = around(router(inside(rt)))
						return h
					}, http.Header{"Authorization": {"Bearer " + token}})
				})

				// Each WebSocket that has ended has one record.
				require.Eventually(t, func() bool { return len(of(records, "websocket")) == 1 }, patience, time.Millisecond)
				r := of(records, "websocket")[0]
				require.Equal(t, "ann", r["user"])
				require.Equal(t, 101.0, r["status"])
				require.Equal(t, 2.0, r["messages_in"])
				require.NotContains(t, records.String(), "panic")

				try := func(key string) int {
					req := httptest.NewRequestWithContext(context.Background(), "POST", "/rt/v1/channel/a/publish", strings.NewReader(`{"header":"x","body":1}`))
					req.Header.Set("Origin", app)
					if key != "" {
						req.Header.Set("X-API-Key", key)
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, req)
					require.Equal(t, []string{app}, w.Header().Values("Access-Control-Allow-Origin"))
					return w.Code
				}
				require.Equal(t, 401, try(""))
				require.Equal(t, 401, try(serverKey+"x"))
				require.Equal(t, 503, try(serverKey), "accepted, by a hub that is shut down")
			})
		}
	}
}

// Recover around the router answers a panic in a router's handler.
func TestOurRecoverAroundRouters(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	c, g, e := chi.NewRouter(), gin.New(), echo.New()
	c.Get("/", func(http.ResponseWriter, *http.Request) { panic("a bug") })
	g.GET("/", func(*gin.Context) { panic("a bug") })
	e.GET("/", func(echo.Context) error { panic("a bug") })
	for name, h := range map[string]http.Handler{"chi": c, "gin": g, "echo": e} {
		records := new(basetest.Log)
		log := slog.New(slog.NewJSONHandler(records, nil))
		w := httptest.NewRecorder()
		ours.Log(ours.LogOptions{Logger: log}).Handler(ours.Recover(log)(h)).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		require.Equal(t, 500, w.Code, name)
		require.Contains(t, w.Body.String(), `"code":"internal"`, name)
		require.Len(t, of(records, "panic"), 1, name)
		require.Equal(t, 500.0, of(records, "request")[0]["status"], name)
	}
}

// discard is chi's logger.
type discard struct{}

func (discard) Print(...any) {}
