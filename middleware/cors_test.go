package middleware_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

const app = "https://app.example.com"

func TestCORS(t *testing.T) {
	for name, c := range map[string]struct {
		allowed, origin string
		ok              bool
	}{
		"the origin":           {app, app, true},
		"its default port":     {app + ":443", app, true},
		"another":              {app, "https://evil.example.com", false},
		"another scheme":       {app, "http://app.example.com", false},
		"a longer name":        {app, app + ".evil.com", false},
		"a subdomain":          {"https://*.example.com", "https://a.b.example.com", true},
		"the domain itself":    {"https://*.example.com", "https://example.com", false},
		"a file, a sandbox":    {app, "null", false},
		"nonsense":             {app, "://", false},
		"none, from a program": {app, "", false},
	} {
		m := must(middleware.CORS(middleware.CORSOptions{Origins: []string{c.allowed}}))
		a := try(m(whoami), "GET", "/", "", "Origin", c.origin)
		require.Equal(t, 200, a.status, name)
		require.Equal(t, "Origin", a.header.Get("Vary"), name)
		if c.ok {
			require.Equal(t, c.origin, a.header.Get("Access-Control-Allow-Origin"), name)
			require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"), name)
			require.Equal(t, "Retry-After, WWW-Authenticate, Allow", a.header.Get("Access-Control-Expose-Headers"), name)
		} else {
			require.NotContains(t, a.header, "Access-Control-Allow-Origin", name)
			require.NotContains(t, a.header, "Access-Control-Allow-Credentials", name)
		}
	}
	any := must(middleware.CORS(middleware.CORSOptions{Origins: []string{"*"}}))
	a := try(any(whoami), "GET", "/", "", "Origin", "null")
	require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
	require.NotContains(t, a.header, "Access-Control-Allow-Credentials", "any website may read, but without credentials")
}

func TestCORSPreflight(t *testing.T) {
	m := must(middleware.CORS(middleware.CORSOptions{Origins: []string{app}, Methods: []string{"GET", "DELETE"}, Headers: []string{"X-A"}, MaxAge: time.Hour}))
	teapot := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })
	a := try(m(teapot), "OPTIONS", "/", "", "Origin", app, "Access-Control-Request-Method", "DELETE")
	require.Equal(t, 204, a.status)
	require.Equal(t, "GET, DELETE", a.header.Get("Access-Control-Allow-Methods"))
	require.Equal(t, "X-A", a.header.Get("Access-Control-Allow-Headers"))
	require.Equal(t, "3600", a.header.Get("Access-Control-Max-Age"))
	require.Equal(t, 418, try(m(teapot), "OPTIONS", "/", "", "Origin", app).status, "not a preflight")
	a = try(m(teapot), "OPTIONS", "/", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "DELETE")
	require.Equal(t, 418, a.status)
	require.NotContains(t, a.header, "Access-Control-Allow-Methods")
}

// Around a hub, which sets CORS headers too, each header appears once. A page
// can read the refusal of another middleware.
func TestCORSAroundTheHub(t *testing.T) {
	cors := must(middleware.CORS(middleware.CORSOptions{Origins: []string{app}}))
	s := serve(t, channels.Options{AllowedOrigins: []string{app}}, cors, hs256(middleware.JWTOptions{}))
	once := func(a answer) {
		t.Helper()
		require.Equal(t, []string{app}, a.header.Values("Access-Control-Allow-Origin"))
		require.Equal(t, []string{"true"}, a.header.Values("Access-Control-Allow-Credentials"))
		require.Equal(t, []string{"Origin"}, a.header.Values("Vary"))
	}
	bearer := "Bearer " + token("ann", nil)
	a := s.publish("chat.1", "1", "Origin", app, "Authorization", bearer)
	require.Equal(t, 200, a.status)
	once(a)
	a = s.publish("chat.1", "1", "Origin", app)
	require.Equal(t, 401, a.status)
	once(a)
	a = s.do("OPTIONS", "/v1/channel/a/publish", "", "Origin", app, "Access-Control-Request-Method", "POST")
	require.Equal(t, 204, a.status)
	once(a)
	a = s.publish("chat.1", "1", "Origin", "https://evil.example", "Authorization", bearer)
	require.Equal(t, "bad_origin", a.code(), "the hub refuses")
}

func TestCORSOptions(t *testing.T) {
	with := func(f func(*middleware.CORSOptions)) middleware.CORSOptions {
		o := middleware.CORSOptions{Origins: []string{app}}
		f(&o)
		return o
	}
	for says, o := range map[string]middleware.CORSOptions{
		"Origins is empty":                                {},
		`Origins has "app.example.com"; it may have`:      {Origins: []string{"app.example.com"}},
		`Origins has "https://a/b"`:                       {Origins: []string{"https://a/b"}},
		`Origins has "*" together with other origins`:     {Origins: []string{app, "*"}},
		`Methods has ""`:                                  with(func(o *middleware.CORSOptions) { o.Methods = []string{""} }),
		`Methods has "GET, POST"`:                         with(func(o *middleware.CORSOptions) { o.Methods = []string{"GET, POST"} }),
		`Headers has "*"`:                                 with(func(o *middleware.CORSOptions) { o.Headers = []string{"*"} }),
		`Exposed has "A\r\nB"`:                            with(func(o *middleware.CORSOptions) { o.Exposed = []string{"A\r\nB"} }),
		"MaxAge is 24h0m1s; it must be 1s to 24h0m0s":     with(func(o *middleware.CORSOptions) { o.MaxAge = 24*time.Hour + time.Second }),
		"middleware: CORSOptions.MaxAge is 1.5s; it must": with(func(o *middleware.CORSOptions) { o.MaxAge = 1500 * time.Millisecond }),
		"MaxAge is -1s":                                   with(func(o *middleware.CORSOptions) { o.MaxAge = -time.Second }),
	} {
		_, err := middleware.CORS(o)
		require.ErrorContains(t, err, says)
	}
}

// CORS accepts the same special origins as the hub.
func TestCORSSpecialOrigins(t *testing.T) {
	for _, origin := range []string{"null", "file://", "app://.", "capacitor://localhost"} {
		m := must(middleware.CORS(middleware.CORSOptions{Origins: []string{origin}}))
		a := try(m(whoami), "GET", "/", "", "Origin", origin)
		require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, origin != "null", a.header.Get("Access-Control-Allow-Credentials") == "true", "any website can make a frame whose origin is null")
		require.NotContains(t, try(m(whoami), "GET", "/", "", "Origin", "https://evil.example").header, "Access-Control-Allow-Origin")
	}
}

// Without Headers in the options, the headers that a page asks for are allowed.
func TestCORSAllowsWhatIsAsked(t *testing.T) {
	ask := func(o middleware.CORSOptions, headers string) answer {
		return try(must(middleware.CORS(o))(whoami), "OPTIONS", "/", "", "Origin", app, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", headers)
	}
	a := ask(middleware.CORSOptions{Origins: []string{app}}, "traceparent,x-requested-with")
	require.Equal(t, "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, x-requested-with", a.header.Get("Access-Control-Allow-Headers"))
	require.Contains(t, a.header.Values("Vary"), "Access-Control-Request-Headers")
	require.Equal(t, "Authorization, Content-Type, Idempotency-Key, Last-Event-ID", ask(middleware.CORSOptions{Origins: []string{app}}, "a b").header.Get("Access-Control-Allow-Headers"))
	require.Equal(t, "X-A", ask(middleware.CORSOptions{Origins: []string{app}, Headers: []string{"X-A"}}, "traceparent").header.Get("Access-Control-Allow-Headers"))
}

// A preflight that announces a body is answered before the body arrives.
func TestCORSDoesNotWaitForABody(t *testing.T) {
	c := serveOnly(t, must(middleware.CORS(middleware.CORSOptions{Origins: []string{app}}))(whoami)).DialRaw()
	c.Send("OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: " + app + "\r\nAccess-Control-Request-Method: GET\r\nContent-Length: 6\r\n\r\n")
	resp, err := http.ReadResponse(c.BR, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
	require.True(t, resp.Close)
	_, err = c.BR.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection must be closed: nothing reads its body")
}
