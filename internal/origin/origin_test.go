package origin

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	for _, p := range []string{"*", "https://example.com", "http://localhost:3000", "https://*.example.com", "https://*.example.com:8443", "https://[::1]:8080", "app://x"} {
		require.NoError(t, Check(p), p)
	}
	for _, p := range []string{"", "example.com", "https://", "https://*", "https://*.", "https://*.:443", "https://:443", "https://.", "https://.example.com", "https://*..example.com", "https://*.*.com",
		"https://a.*.com", "https://a.com/", "https://a.com/x", "https://a.com?x", "https://a.com#x", "https://u@a.com", "https://a.com:", "https://a.com:x", "**", "null"} {
		require.Error(t, Check(p), p)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, origin string
		want            bool
	}{
		{"*", "https://a.com", true},
		{"https://a.com", "https://a.com", true},
		{"https://a.com", "HTTPS://A.com", true},
		{"https://a.com", "https://a.com:443", true},
		{"https://a.com:443", "https://a.com", true},
		{"https://a.com", "https://a.com:444", false},
		{"https://a.com", "http://a.com", false},
		{"https://a.com", "https://b.a.com", false},
		{"https://*.a.com", "https://b.a.com", true},
		{"https://*.a.com", "https://c.b.a.com", true},
		{"https://*.a.com", "https://a.com", false},
		{"https://*.a.com", "https://.a.com", false},
		{"https://*.a.com", "https://xa.com", false},
		{"https://*.a.com", "https://evil.com/.a.com", false},
		{"https://*.a.com", "https://evil.com#.a.com", false},
		{"https://*.a.com", "https://evil.com?.a.com", false},
		{"https://*.a.com", "https://x@b.a.com", false},
		{"https://*.a.com", "https://b.a.com/", false},
		{"https://*.a.com", "https://b.a.com?q", false},
	} {
		u, err := url.Parse(c.origin)
		require.NoError(t, err)
		require.Equal(t, c.want, Match(c.pattern, u), "%s %s", c.pattern, c.origin)
	}
}
