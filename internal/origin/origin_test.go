package origin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	for _, p := range []string{"*", "https://example.com", "http://localhost:3000", "https://*.example.com", "https://*.example.com:8443", "https://[::1]:8080", "app://x",
		"null", "file://", "app://.", "app://-", "capacitor://localhost", "ionic://localhost", "tauri://localhost", "chrome-extension://abc", "moz-extension://0-1", "vscode-webview://x", "x+y.z-1://"} {
		require.NoError(t, Check(p), p)
	}
	for _, p := range []string{"", "example.com", "https://", "https://*", "https://*.", "https://*.:443", "https://:443", "https://.", "https://.example.com", "https://*..example.com", "https://*.*.com",
		"https://a.*.com", "https://a.com/", "https://a.com/x", "https://a.com?x", "https://a.com#x", "https://u@a.com", "https://a.com:", "https://a.com:x", "**",
		"http://", "HTTPS://", "http://*", "https://a.com:0", "https://a.com:65536", `https://a.com\b`, "https://a b", "://", "://a", "1a://", "a b://x", "NULL", "file:///", "file:///home", "app://x?y", "app://x#y", "app://u@x", "app://*", "app://a*", "app://x y", "https://bücher.example", "app://bü"} {
		require.Error(t, Check(p), p)
	}
	require.ErrorContains(t, Check("https://bücher.example"), "xn--", "it would never match")
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, origin string
		want            bool
	}{
		{"*", "https://a.com", true},
		{"*", "null", true},
		{"*", "what is that", true},
		{"https://a.com", "https://a.com", true},
		{"https://a.com", "HTTPS://A.com", true},
		{"https://a.com", "https://a.com:443", true},
		{"https://a.com:443", "https://a.com", true},
		{"HTTPS://a.com:443", "https://a.com", true},
		{"http://a.com:80", "http://a.com", true},
		{"https://a.com:80", "https://a.com", false},
		{"https://a.com", "https://a.com:444", false},
		{"https://a.com", "http://a.com", false},
		{"https://a.com", "https://b.a.com", false},
		{"https://*.a.com", "https://b.a.com", true},
		{"https://*.a.com", "https://b.a.com:443", true},
		{"https://*.a.com:443", "https://b.a.com", true},
		{"https://*.a.com", "https://c.b.a.com", true},
		{"https://*.a.com", "https://a.com", false},
		{"https://*.a.com", "https://.a.com", false},
		{"https://*.a.com", "https://xa.com", false},
		{"https://*.a.com", "https://evil.com/.a.com", false},
		{"https://*.a.com", "https://evil.com#.a.com", false},
		{"https://*.a.com", "https://evil.com?.a.com", false},
		{"https://*.a.com", `https://evil.com\.a.com`, false},
		{"https://*.a.com", "https://x@b.a.com", false},
		{"https://*.a.com", "https://b.a.com/", false},
		{"https://*.a.com", "https://b.a.com?q", false},
		{"https://*.a.com", "https://b a.a.com", false},
		{"https://a.com", "https://u@a.com", false},
		{"https://a.com", "https://a.com/x", false},
		{"https://kiosk.com", "https://\u212aiosk.com", false}, // KELVIN SIGN folds to k
		{"https://s.com", "https://\u017f.com", false},         // LATIN SMALL LETTER LONG S folds to s
		{"null", "null", true},
		{"null", "NULL", false},
		{"null", "https://null", false},
		{"https://null", "null", false},
		{"file://", "file://", true},
		{"file://", "file:///", false},
		{"file://", "file://x", false},
		{"file://", "null", false},
		{"app://.", "app://.", true},
		{"app://.", "app://-", false},
		{"app://.", "App://.", true},
		{"capacitor://localhost", "capacitor://localhost", true},
		{"capacitor://localhost", "ionic://localhost", false},
		{"capacitor://localhost", "http://localhost", false},
		{"app://x:80", "app://x", false}, // this scheme has no known default port
	} {
		require.Equal(t, c.want, Match(c.pattern, c.origin), "%s %s", c.pattern, c.origin)
	}
}

func TestSameHost(t *testing.T) {
	for _, c := range []struct {
		origin, host string
		tls, want    bool
	}{
		{"https://app.example", "app.example", false, true},
		{"http://app.example", "app.example", false, true},
		{"https://app.example", "app.example", true, true},
		{"http://app.example", "app.example", true, false}, // anyone on its network may have changed the page
		{"https://App.Example", "app.EXAMPLE", false, true},
		{"https://app.example", "app.example:443", false, true},
		{"https://app.example:443", "app.example", false, true},
		{"http://app.example", "app.example:80", false, true},
		{"http://app.example:80", "app.example", false, true},
		{"https://app.example", "app.example:444", false, false},
		{"https://app.example:444", "app.example", false, false},
		{"https://app.example", "app.example:80", false, false},
		{"http://app.example", "app.example:443", false, false},
		{"http://[::1]:80", "[::1]", false, true},
		{"http://127.0.0.1:8080", "127.0.0.1:8080", false, true},
		{"https://u@app.example", "app.example", false, false},
		{"https://app.example/x", "app.example", false, false},
		{"https://app.example?x", "app.example", false, false},
		{"app://app.example", "app.example", false, false},
		{"ws://app.example", "app.example", false, false},
		{"https://\u212aiosk.example", "kiosk.example", false, false},
		{"https://kiosk.example", "\u212aiosk.example", false, false},
		{"https://", "", false, false},
		{"http://:80", "", false, false},
		{"null", "null", false, false},
		{"", "", false, false},
	} {
		require.Equal(t, c.want, SameHost(c.origin, c.host, c.tls), "%s %s", c.origin, c.host)
	}
}

func TestCheckHost(t *testing.T) {
	for _, p := range []string{"localhost", "app.example.com", "*.example.com", "*", "app", "my_host", "xn--bcher-kva.example", "app.example.com.", "127.0.0.1", "::1", "[::1]"} {
		require.NoError(t, CheckHost(p), p)
	}
	for _, p := range []string{"", ".", "*.", "**", "a.*.com", "*.*.com", "https://app.example.com", "app.example.com:8080", "app.example.com/", "bücher.example", "a b", "a..b", ".a", strings.Repeat("a", 64), "u@a", "*.[::1]"} {
		require.Error(t, CheckHost(p), p)
	}
}

func TestAnswers(t *testing.T) {
	names := []string{"app.example.com", "*.live.example.com"}
	for host, want := range map[string]bool{
		"":                         true, // not a browser
		"localhost":                true,
		"LocalHost:8080":           true,
		"localhost.":               true,
		"a.localhost:1":            true,
		"127.0.0.1":                true,
		"127.0.0.1:8080":           true,
		"192.0.2.1:80":             true,
		"[::1]":                    true,
		"[::1]:8080":               true,
		"app.example.com":          true,
		"APP.example.com:443":      true,
		"app.example.com.":         true,
		"a.live.example.com":       true,
		"b.a.live.example.com:9":   true,
		"live.example.com":         false,
		".live.example.com":        false,
		"example.com":              false,
		"x.app.example.com":        false,
		"app.example.com.evil.com": false,
		"evil.example:8080":        false,
		"localhost.evil.example":   false,
		"127.0.0.1.evil.example":   false,
		"127.0.0.1.nip.io":         false,
		"evillocalhost":            false,
		"127.0.0.1:x":              false,
		"localhost:99999":          false,
		"localhost:1:2":            false,
		"localhost/evil":           false,
		"localhost@evil":           false,
		"[::1":                     false,
		"[::1]x":                   false,
		"[evil]":                   false,
		"::1":                      false,
		"\u212aiosk":               false,
		"loca\u017fhost":           false,
		"0x7f.1":                   false, // a browser that sends this means a name
		":80":                      false,
	} {
		require.Equal(t, want, Answers(names, host), "%q", host)
	}
	require.False(t, Answers(nil, "app.example.com"))
	require.True(t, Answers([]string{"*"}, "evil.example"))
	require.True(t, Answers([]string{"app.example.com."}, "app.example.com"))
}

func TestRequested(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"cache-control,x-requested-with"}, "cache-control, x-requested-with"},
		{[]string{" traceparent , baggage", "sentry-trace"}, "traceparent, baggage, sentry-trace"},
		{[]string{"x y"}, ""},
		{[]string{"x\r\nset-cookie: a"}, ""},
		{[]string{"x;y"}, ""},
		{[]string{"fine, \u00fc"}, ""},
		{[]string{strings.Repeat("a", 5000)}, ""},
	} {
		h := http.Header{}
		if c.values != nil {
			h["Access-Control-Request-Headers"] = c.values
		}
		got, ok := Requested(h)
		require.Equal(t, c.want, got)
		require.Equal(t, c.want != "", ok)
	}
}

func TestIsOwn(t *testing.T) {
	for _, c := range []struct {
		own          bool
		site, origin string
	}{
		{true, "", ""}, {true, "none", ""}, {true, "same-origin", ""}, {true, "same-origin", "http://app.example.com"}, {true, "", "http://app.example.com"},
		{false, "cross-site", ""}, {false, "same-site", ""}, {false, "cross-site", "http://app.example.com"}, {false, "", "http://other.example.com"}, {false, "", "null"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			r := httptest.NewRequest(method, "http://app.example.com/", nil)
			if c.site != "" {
				r.Header.Set("Sec-Fetch-Site", c.site)
			}
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			require.Equal(t, c.own, IsOwn(r), "%s %+v", method, c)
			require.Equal(t, method, r.Method)
		}
	}
}
