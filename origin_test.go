package channels_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// Every endpoint, for every method, answers only to the names that it goes by:
// a website that lets its own name lead here is of the same origin as the hub.
func TestHosts(t *testing.T) {
	s := serve(t, channels.Options{Hosts: []string{"app.example.com", "*.live.example.com"}, AllowedOrigins: []string{"https://listed.example"}})
	const evil = "evil.example:8080"
	rebound := []string{"Origin", "http://" + evil, "Sec-Fetch-Site", "same-origin"}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/channel/a/publish", `{"header":"x","body":1}`}, {"POST", "/v1/publish", `{"messages":[]}`},
		{"GET", "/v1/channel", ""}, {"GET", "/v1/channel/a", ""}, {"GET", "/v1/channel/a/history", ""}, {"GET", "/v1/channel/a/presence", ""},
		{"GET", "/v1/nodes", ""}, {"GET", "/healthz", ""}, {"GET", "/readyz", ""}, {"GET", "/channel/a/", ""}, {"GET", "/channels.js", ""},
		{"OPTIONS", "/v1/channel", ""}, {"DELETE", "/v1/channel", ""}, {"GET", "/nothing", ""},
	} {
		for _, header := range [][]string{nil, rebound, {"Origin", "http://" + evil}, {"Accept", "text/event-stream"}} {
			a := s.do(c.method, c.path, c.body, append(header, "Host", evil)...)
			require.Equal(t, 421, a.status, "%s %s %s", c.method, c.path, header)
			require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "bad_host", a.code())
			require.Contains(t, a.message(), `"evil.example:8080"`)
			require.Contains(t, a.message(), "Options.Hosts")
		}
	}
	_, resp, err := s.tryDial("/channel/a/", &websocket.DialOptions{Host: evil, HTTPHeader: http.Header{"Origin": {"http://" + evil}}})
	require.Error(t, err)
	require.Equal(t, 421, resp.StatusCode)
	// A listed page learns why.
	a := s.get("/v1/nodes", "Host", evil, "Origin", "https://listed.example")
	a.wantFail(t, 421, "bad_host")
	require.Equal(t, "https://listed.example", a.header.Get("Access-Control-Allow-Origin"))
	for _, host := range []string{"app.example.com", "APP.example.com:8443", "a.live.example.com", "localhost:8080", "a.localhost", "127.0.0.1", "192.0.2.7:80", "[::1]:8080"} {
		a := s.post("/v1/channel/a/publish", say("1"), "Host", host, "Origin", "http://"+host)
		require.Equal(t, 200, a.status, "%s: %s", host, a.body)
	}
	for _, host := range []string{"live.example.com", "app.example.com.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"} {
		s.get("/v1/nodes", "Host", host).wantFail(t, 421, "bad_host")
	}
}

// An app behind a proxy on its own machine is called by any name.
func TestHostsDefault(t *testing.T) {
	s := serve(t, channels.Options{})
	require.Equal(t, 200, s.get("/v1/nodes", "Host", "any.example", "Origin", "http://any.example").status)
	for _, bad := range []string{"", "https://app.example.com", "app.example.com:443", "bücher.example", "a b", "*.*.com"} {
		_, err := channels.New(channels.Options{Hosts: []string{"fine.example", bad}})
		require.ErrorContains(t, err, fmt.Sprintf("Options.Hosts has %q", bad))
		require.ErrorContains(t, err, "*.example.com")
	}
}

// A proxy may add to the Host the port that the browser leaves out, and the
// other way round; and no other letter is one of the host's.
func TestOwnOrigin(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, c := range []struct {
		host, origin string
		ok           bool
	}{
		{"app.example:443", "https://app.example", true},
		{"app.example", "https://app.example:443", true},
		{"app.example:80", "http://app.example", true},
		{"app.example", "http://app.example:80", true},
		{"app.example:444", "https://app.example", false},
		{"app.example:80", "https://app.example", false},
		{"app.example:443", "http://app.example", false},
		{"kiosk.example", "https://\u212aiosk.example", false},
		{"app.example", "https://user@app.example", false},
		{"app.example", "https://app.example/path", false},
		{"app.example", "https://app.example?query", false},
		{"app.example", "app://app.example", false},
	} {
		want := map[bool]int{true: 200, false: 403}[c.ok]
		a := s.post("/v1/channel/a/publish", say("1"), "Host", c.host, "Origin", c.origin)
		require.Equal(t, want, a.status, "%s at %s", c.origin, c.host)
		w, resp, err := s.tryDial("/channel/a/", &websocket.DialOptions{Host: c.host, HTTPHeader: http.Header{"Origin": {c.origin}}})
		if c.ok {
			require.NoError(t, err, "%s at %s", c.origin, c.host)
			w.c.CloseNow()
		} else {
			require.Equal(t, 403, resp.StatusCode, "%s at %s", c.origin, c.host)
		}
	}
	tls := serveTLS(t, channels.Options{})
	host := strings.TrimPrefix(tls.http.URL, "https://")
	require.Equal(t, 200, tls.do("GET", "/v1/nodes", "", "Origin", "https://"+host).status)
	tls.do("GET", "/v1/nodes", "", "Origin", "http://"+host).wantFail(t, 403, "bad_origin")
}

// The pages of apps have origins that are no websites'.
func TestAppOrigins(t *testing.T) {
	apps := []string{"file://", "null", "app://.", "app://-", "capacitor://localhost", "ionic://localhost", "tauri://localhost", "chrome-extension://abc", "vscode-webview://x"}
	for _, listed := range apps {
		s := serve(t, channels.Options{AllowedOrigins: []string{listed}})
		for _, origin := range append(apps, "https://evil.example") {
			a := s.get("/v1/nodes", "Origin", origin)
			if origin != listed {
				a.wantFail(t, 403, "bad_origin")
				continue
			}
			require.Equal(t, 200, a.status, "%s: %s", origin, a.body)
			require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
			w, _, err := s.tryDial("/channel/a/", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
			require.NoError(t, err, origin)
			w.c.CloseNow()
			want := "true"
			if origin == "null" { // any website makes a frame that says so
				want = ""
			}
			require.Equal(t, want, a.header.Get("Access-Control-Allow-Credentials"), origin)
		}
	}
}

// Tools add headers of theirs to what a page sends.
func TestPreflightAllowsWhatIsAsked(t *testing.T) {
	s := serve(t, channels.Options{AllowedOrigins: []string{"https://app.example"}})
	ask := func(origin, headers string) answer {
		return s.do("OPTIONS", "/channel/a/", "", "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", headers)
	}
	a := ask("https://app.example", "baggage,cache-control,sentry-trace,traceparent,x-requested-with")
	require.Equal(t, 204, a.status)
	require.Equal(t, "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, baggage, cache-control, sentry-trace, traceparent, x-requested-with", a.header.Get("Access-Control-Allow-Headers"))
	require.Contains(t, a.header.Values("Vary"), "Access-Control-Request-Headers")
	require.Equal(t, "Authorization, Content-Type, Idempotency-Key, Last-Event-ID", ask("https://app.example", "no token").header.Get("Access-Control-Allow-Headers"))
	a = ask("https://evil.example", "cache-control")
	require.Equal(t, 403, a.status)
	require.Empty(t, a.header.Get("Access-Control-Allow-Headers"))
}

// A page that may come can read why it is refused, and when to come again.
func TestRefusalsCanBeReadByScripts(t *testing.T) {
	s := serve(t, channels.Options{AllowedOrigins: []string{"https://app.example"}, MaxConnections: 1})
	s.join("a", "")
	for _, c := range []struct {
		method, path, accept string
		status               int
	}{
		{"GET", "/channel/a/", "text/event-stream", 503},
		{"GET", "/nothing", "", 404},
		{"DELETE", "/v1/channel", "", 405},
		{"GET", "/v1/channel/a%2Fb/history", "", 400},
		{"POST", "/v1/channel/a/publish", "", 400},
		{"GET", "/channel/a/", "", 426},
		{"GET", "/v1/nodes", "", 200},
	} {
		a := s.do(c.method, c.path, "", "Origin", "https://app.example", "Accept", c.accept)
		if c.status != 503 || a.status != 200 { // or a stream that ends, for a browser
			require.Equal(t, c.status, a.status, "%s %s: %s", c.method, c.path, a.body)
		}
		require.Equal(t, "https://app.example", a.header.Get("Access-Control-Allow-Origin"), c.path)
		require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"), c.path)
		require.Equal(t, "Retry-After, WWW-Authenticate, Allow", a.header.Get("Access-Control-Expose-Headers"), c.path)
		require.Contains(t, a.header.Values("Vary"), "Origin", c.path)
		a = s.do(c.method, c.path, "", "Origin", "https://evil.example", "Accept", c.accept)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"), c.path)
	}
}

// Browsers do not show why they were refused, so the log does: not for each of
// many, and with what to set.
func TestRefusedOriginsAndHostsAreLogged(t *testing.T) {
	s := serve(t, channels.Options{Hosts: []string{"app.example"}})
	for range 5 {
		a := s.get("/v1/nodes", "Host", "app.example", "Origin", "https://other.example")
		a.wantFail(t, 403, "bad_origin")
		require.Contains(t, a.message(), `"app.example"`, "the Host that was compared")
		require.Contains(t, a.message(), "Options.AllowedOrigins")
		s.get("/v1/nodes", "Host", "evil.example").wantFail(t, 421, "bad_host")
	}
	log := s.log.String()
	require.Equal(t, 1, strings.Count(log, "code=bad_origin"), log)
	require.Equal(t, 1, strings.Count(log, "code=bad_host"), log)
	for _, says := range []string{"level=WARN", "origin=https://other.example", "host=app.example", "Options.AllowedOrigins", "-origin", "host=evil.example", "Options.Hosts", "-host", "path=/v1/nodes"} {
		require.Contains(t, log, says)
	}
}

// Each origin and each host is logged, up to a bound: one does not hide another.
func TestEachRefusedOriginIsLogged(t *testing.T) {
	s := serve(t, channels.Options{})
	for i := range 40 {
		s.get("/v1/nodes", "Origin", fmt.Sprintf("https://%d.example", i)).wantFail(t, 403, "bad_origin")
	}
	log := s.log.String()
	require.Contains(t, log, "origin=https://0.example")
	require.Contains(t, log, "origin=https://1.example")
	require.Equal(t, 16, strings.Count(log, "code=bad_origin"), log)
}

// Over plain HTTP only the Referer says which page asks for a stream. It is refused and
// logged like any other: behind a proxy that hides the Host, that is the app's own page.
func TestARefusedStreamIsLogged(t *testing.T) {
	for _, path := range []string{"/channel/todo/?format=event", "/v1/events?channel=todo", "/connection/sse"} {
		s := serve(t, channels.Options{})
		for range 3 {
			a := s.getStream(path, "Host", "127.0.0.1:8080", "Referer", "http://shop.test/hx")
			a.wantFail(t, 403, "bad_origin")
			for _, says := range []string{`"http://shop.test"`, `"127.0.0.1:8080"`, "Options.AllowedOrigins", "a proxy has to pass the Host on"} {
				require.Contains(t, a.message(), says, path)
			}
		}
		log := s.log.String()
		require.Equal(t, 1, strings.Count(log, "code=bad_origin"), log)
		require.Contains(t, log, "origin=http://shop.test")
		require.Contains(t, log, "a proxy has to pass the Host on")
	}
}

// A hub below a path, without the prefix taken off, says what is missing.
func TestNotFoundHintsAtMounting(t *testing.T) {
	hub := newHub(t, channels.Options{})
	mux := http.NewServeMux()
	mux.Handle("/rt/", hub.Handler())
	ask := func(path string) string {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		require.Equal(t, 404, w.Code)
		return w.Body.String()
	}
	for _, path := range []string{"/rt/channel/a/", "/rt/channel/a", "/rt/v1/nodes", "/rt/healthz", "/rt/readyz"} {
		require.Contains(t, ask(path), `http.StripPrefix(\"/rt\", hub.Handler())`, path)
	}
	require.NotContains(t, ask("/rt/nothing"), "StripPrefix")
	require.NotContains(t, ask("/rt/healthz/x"), "StripPrefix")
}

// A path of the hub's own with something wrong behind it is not taken for a hub
// that is mounted below a path: the answer says what there is.
func TestNotFoundSaysWhatThereIs(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, path := range []string{"/", "/channel", "/v1", "/v1/channels", "/v1/channel/a/histroy", "/v1/channel/a/b/publish", "/v1/channel/a/channel/b",
		"/channel/a/b", "/channel/a/v1/", "/channel/a/channel/b", "/healthz/x", "/readyz/healthz"} {
		a := s.get(path)
		a.wantFail(t, 404, "not_found")
		require.NotContains(t, a.message(), "StripPrefix", path)
		require.Contains(t, a.message(), "/v1/channel/NAME with /publish, /history", path)
	}
}

// A page on another website can have a browser send a GET with the visitor's
// cookies and no Origin. It must not make the visitor a member.
func TestACrossSiteStreamWithoutOrigin(t *testing.T) {
	s := serve(t, channels.Options{OnConnect: func(context.Context, channels.Client) error { t.Error("connected"); return nil }})
	a := s.getStream("/channel/c/", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")
	a.wantFail(t, 403, "bad_origin")
	require.Equal(t, 200, s.get("/v1/channel", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors").status)
}

// http://host is not the origin of https://host: anybody on the network can forge
// a page without TLS. If the browser says "cross-site", the request is refused.
func TestAPageWithoutTLSIsAnotherSite(t *testing.T) {
	s := serveTLS(t, channels.Options{})
	host := strings.TrimPrefix(s.http.URL, "https://")
	a := s.post("/v1/channel/c/publish", `{"header":"h","body":1}`, "Origin", "http://"+host, "Sec-Fetch-Site", "cross-site")
	a.wantFail(t, 403, "bad_origin")
	require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, 200, s.post("/v1/channel/c/publish", `{"header":"h","body":1}`, "Origin", "https://"+host, "Sec-Fetch-Site", "same-origin").status)
}

func TestHTTPOrigins(t *testing.T) {
	const own, ownOtherScheme = "http://HOST", "https://HOST"
	type row struct {
		origin  string
		allowed bool
	}
	for name, c := range map[string]struct {
		allowed     []string
		credentials bool
		rows        []row
	}{
		"only the own": {nil, true, []row{
			{own, true}, {ownOtherScheme, true}, {"http://127.0.0.1", false}, {"http://127.0.0.1:1", false},
			{"https://evil.example", false}, {"null", false}, {"file://", false}, {"HOST", false}, {"http://x@", false}, {":", false},
			{"http://HOST.evil.example", false},
		}},
		"exact": {[]string{"https://app.example.com", "https://with.example:8443"}, true, []row{
			{own, true}, {"https://app.example.com", true}, {"https://APP.example.COM", true}, {"HTTPS://app.example.com", true},
			{"http://app.example.com", false}, {"https://app.example.com:8443", false}, {"https://a.app.example.com", false},
			{"https://app.example.com.evil.example", false}, {"https://evilapp.example.com", false}, {"https://example.com", false},
			{"https://with.example:8443", true}, {"https://with.example", false}, {"https://with.example:8444", false}, {"null", false},
		}},
		"any subdomain": {[]string{"https://*.example.com"}, true, []row{
			{"https://a.example.com", true}, {"https://a.b.example.com", true}, {"https://A.Example.com", true},
			{"https://example.com", false}, {"https://.example.com", false}, {"https://evilexample.com", false}, {"https://evil-example.com", false},
			{"http://a.example.com", false}, {"https://a.example.com:444", false}, {"https://a.example.com.evil.example", false}, {"null", false},
		}},
		"any subdomain, on a port": {[]string{"http://*.dev.localhost:3000"}, true, []row{
			{"http://a.dev.localhost:3000", true}, {"http://a.dev.localhost:3001", false}, {"http://a.dev.localhost", false}, {"http://dev.localhost:3000", false},
		}},
		"every website": {[]string{"*"}, false, []row{
			{own, true}, {"https://evil.example", true}, {"http://localhost:1", true}, {"null", true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{AllowedOrigins: c.allowed})
			host := strings.TrimPrefix(s.http.URL, "http://")
			for _, r := range c.rows {
				origin := strings.ReplaceAll(r.origin, "HOST", host)
				t.Run(r.origin, func(t *testing.T) {
					simple := s.post("/v1/channel/a/publish", `{"header":"x","body":1}`, "Origin", origin)
					preflight := s.do("OPTIONS", "/v1/channel/a/publish", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "idempotency-key")
					get := s.get("/v1/channel", "Origin", origin)
					wrong := s.post("/v1/channel/a/publish", `{}`, "Origin", origin)
					w, resp, err := s.tryDial("/channel/a/", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
					for _, a := range []answer{simple, preflight, get, wrong} {
						require.Contains(t, a.header.Values("Vary"), "Origin", "or a cache gives one website's answer to another")
					}
					if !r.allowed {
						for _, a := range []answer{simple, preflight, get, wrong} {
							a.wantFail(t, 403, "bad_origin")
							require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
							require.Empty(t, a.header.Get("Access-Control-Allow-Methods"))
						}
						require.Error(t, err)
						require.Equal(t, 403, resp.StatusCode)
						return
					}
					require.NoError(t, err)
					w.c.CloseNow()
					require.Equal(t, 200, simple.status)
					require.Equal(t, 204, preflight.status)
					require.Equal(t, 200, get.status)
					wrong.wantFail(t, 400, "bad_message") // which a page's script may read too
					for _, a := range []answer{simple, preflight, get, wrong} {
						require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
						want := ""
						if c.credentials {
							want = "true"
						}
						require.Equal(t, want, a.header.Get("Access-Control-Allow-Credentials"))
					}
					require.Contains(t, preflight.header.Get("Access-Control-Allow-Methods"), "POST")
					for _, h := range []string{"Authorization", "Content-Type", "Idempotency-Key"} {
						require.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), h)
					}
					require.NotEmpty(t, preflight.header.Get("Access-Control-Max-Age"))
					require.Empty(t, simple.header.Get("Access-Control-Allow-Methods"), "only a preflight asks for it")
				})
			}
		})
	}
}

func TestHTTPSecFetchSite(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, c := range []struct {
		site, origin string
		get, post    int
	}{
		{"", "", 200, 200},                                   // no browser
		{"none", "", 200, 200},                               // typed by the user
		{"same-origin", "", 200, 200},                        //
		{"same-origin", "https://app.example.com", 200, 200}, // a proxy has rewritten the Host
		{"same-site", "", 200, 403},
		{"cross-site", "", 200, 403}, // a link and a form of another website
		{"cross-site", "https://evil.example", 403, 403},
		{"same-site", "https://evil.example", 403, 403},
		{"none", "https://evil.example", 403, 403},
		{"nonsense", "", 200, 403},
	} {
		t.Run(c.site+" "+c.origin, func(t *testing.T) {
			var header []string
			if c.site != "" {
				header = append(header, "Sec-Fetch-Site", c.site)
			}
			if c.origin != "" {
				header = append(header, "Origin", c.origin)
			}
			get := s.get("/v1/channel", header...)
			post := s.post("/v1/channel/a/publish", `{"header":"x","body":1}`, header...)
			require.Equal(t, c.get, get.status)
			require.Equal(t, c.post, post.status)
			if c.post == 403 {
				post.wantFail(t, 403, "bad_origin")
			}
		})
	}
}
