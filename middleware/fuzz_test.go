package middleware_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// For any X-Forwarded-For, the result is a valid address, and an address that
// the client put before its own is not trusted.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", "203.0.113.5", "1.2.3.4, 10.9.9.9, 203.0.113.5", "[2001:db8::1]:80", "fe80::1%eth0", ",,", "unknown", "10.0.0.1\n203.0.113.5", "::ffff:10.0.0.1"} {
		f.Add(s)
	}
	m := must(middleware.TrustProxies(prefixes("10.0.0.0/8")...))
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		got, err := netip.ParseAddrPort(seenThrough(m, "10.0.0.1:99", lines...))
		require.NoError(t, err)
		require.False(t, got.Addr().Is4In6() || got.Addr().Zone() != "", "%v is not in canonical form", got)
		require.Equal(t, "203.0.113.5:0", seenThrough(m, "10.0.0.1:99", append(lines, "203.0.113.5")...), "the address that the proxy saw")
		require.Equal(t, "203.0.113.5:99", seenThrough(m, "203.0.113.5:99", lines...), "the client itself")
	})
}

// With arbitrary bytes as credentials, no request gets in, and the answer is
// 401.
func FuzzCredentials(f *testing.F) {
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	for _, s := range []string{"", "Bearer", "Bearer ", "bearer a.b.c", "Bearer " + head + ".e30.", "Basic x", "channels, bearer.a.b.c", "bearer.,bearer.", "session=a.b.c; session=", "session=\"a\"",
		"Bearer " + head + "." + base64.RawURLEncoding.EncodeToString([]byte("null")) + ".x", "Bearer eyJhbGciOiJub25lIn0.e30."} {
		f.Add(s, s, s, s)
	}
	h := stack(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { panic("in") }), apiKeys(), hs256(middleware.JWTOptions{Cookie: "session"}))
	f.Fuzz(func(t *testing.T, authorization, protocol, cookie, key string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Sec-Websocket-Protocol", protocol)
		r.Header.Set("Cookie", cookie)
		if key != "" {
			r.Header.Set("X-Api-Key", key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusUnauthorized, w.Code, w.Body)
		require.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
	})
}

// The subprotocols beside the token are passed on unchanged.
func FuzzSubprotocols(f *testing.F) {
	for _, s := range []string{"", "channels", "a,b", " a , b ", ",", "bearer", "bearer.x"} {
		f.Add(s)
	}
	m, ann := hs256(middleware.JWTOptions{}), token("ann", nil)
	f.Fuzz(func(t *testing.T, s string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Sec-Websocket-Protocol"] = []string{s, "bearer." + ann}
		in := false
		m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			in = true
			for _, v := range r.Header.Values("Sec-Websocket-Protocol") {
				require.NotContains(t, v, ann, "the token was passed on")
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
		two := false
		for p := range strings.SplitSeq(s, ",") {
			two = two || strings.HasPrefix(strings.TrimSpace(p), "bearer.")
		}
		require.NotEqual(t, two, in, "let in, with %q besides", s)
	})
}

// A pattern matches like the regular expression that has .* for each star.
func FuzzPattern(f *testing.F) {
	f.Add("chat.*", "chat.1")
	f.Add("a*b*c", "a.b.b.c")
	f.Add("**", "한")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if channels.CheckName(strings.ReplaceAll(pattern, "*", "x")) != nil || channels.CheckName(name) != nil {
			return
		}
		want := regexp.MustCompile(`^(?s:` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `)$`).MatchString(name)
		require.Equal(t, want, may(pattern, name), "%q %q", pattern, name)
	})
}

// Whatever a client sends as a pattern, a grant that covers it matches each text that
// the pattern matches in whatever way one reads it: at least the pattern itself.
func FuzzGrantsOfPatterns(f *testing.F) {
	for _, glob := range []string{"chat.*", "a?c", "[a-z]", `\*`, "[", "[^]", "한*", "a[b"} {
		f.Add("chat.*", glob)
		f.Add("a*c", glob)
	}
	f.Fuzz(func(t *testing.T, grant, glob string) {
		require.True(t, mayAll("*", glob), "everything is granted")
		if channels.CheckName(strings.ReplaceAll(grant, "*", "x")) != nil || !mayAll(grant, glob) {
			return
		}
		require.True(t, may(grant, glob), "the grant %q allows %q", grant, glob)
		for _, text := range []string{"", "x", "한", glob} {
			if name := strings.ReplaceAll(glob, "*", text); !strings.ContainsAny(glob, `[\?`) {
				require.True(t, may(grant, name), "the grant %q allows %q, which matches %q", grant, glob, name)
			}
		}
	})
}
