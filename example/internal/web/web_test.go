package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/internal/basetest"
)

// An address that cannot be listened on is refused with the flag, and with what
// helps.
func TestListenSaysWhatHelps(t *testing.T) {
	taken := basetest.Listen(t).Addr().String()
	_, err := web.Listen(taken)
	require.EqualError(t, err, "-addr: listen tcp "+taken+": bind: address already in use; choose another one, such as -addr 127.0.0.1:8081")
	_, err = web.Listen("no address")
	require.EqualError(t, err, "-addr: listen tcp: address no address: missing port in address")
}

// A Host that contains more than a host name and a port does not get into the
// policy.
func TestPolicyNamesOnlyAHost(t *testing.T) {
	h := web.Secure(http.NotFoundHandler(), "'none'")
	for host, connect := range map[string]string{
		"chat.example:8443":          "connect-src 'self' ws://chat.example:8443 wss://chat.example:8443;",
		"[::1]:8080":                 "connect-src 'self' ws://[::1]:8080 wss://[::1]:8080;",
		"a;script-src*":              "connect-src 'self';",
		"*":                          "connect-src 'self';",
		"":                           "connect-src 'self';",
		"a,default-src'unsafe-eval'": "connect-src 'self';",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'self'; "+connect+" base-uri", host)
	}
}
