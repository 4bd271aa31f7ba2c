package middleware_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/middleware"
)

func TestHosts(t *testing.T) {
	h := must(middleware.Hosts("app.example.com", "*.live.example.com"))(whoami)
	for host, want := range map[string]int{
		"app.example.com": 200, "a.live.example.com:8443": 200, "localhost:8080": 200, "127.0.0.1:8080": 200, "[::1]:8080": 200,
		"evil.example:8080": 421, "live.example.com": 421, "127.0.0.1.evil.example": 421,
	} {
		a := try(h, "GET", "/", "", "Host", host)
		require.Equal(t, want, a.status, host)
		if want == 421 {
			require.Equal(t, "bad_host", a.code())
			require.Contains(t, a.message(), host)
		}
	}
	_, err := middleware.Hosts("https://app.example.com")
	require.ErrorContains(t, err, `middleware: Hosts has "https://app.example.com"`)
}
