//go:build !windows

package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Two servers share a Redis that requires TLS and a password. Both have the
// same list and history, and a client of one resumes at the other. When one is
// killed, its subscribers leave the list.
func TestServersShareARedis(t *testing.T) {
	const password = "hush-hush"
	ours := certtest.NewAuthority()
	cert, key := ours.Files(t.TempDir(), "127.0.0.1")
	tls := strconv.Itoa(redistest.FreePort(t))
	redistest.Start(t, "--requirepass", password, "--tls-port", tls, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")

	var servers []*process
	for range 2 {
		p := launch(t, []string{"CHANNELS_REDIS=rediss://:" + password + "@127.0.0.1:" + tls + "/0", "SSL_CERT_FILE=" + ours.CAFile(t.TempDir())},
			"-history", "h*=100,1h", "-log-level", "debug", "-redis-prefix", "app")
		eventually(t, "the server is ready", func() bool {
			code, _ := call(t, "GET", "http://"+p.addr+"/readyz", "")
			return code == 200
		})
		servers = append(servers, p)
	}
	one, two := servers[0].addr, servers[1].addr
	for _, addr := range []string{one, one, two} {
		join(t, addr, "h1")
	}
	require.Contains(t, post(t, one, "h1", `{"header":"x","body":1}`), `"offset":1`)
	var second struct{ Epoch string }
	require.NoError(t, json.Unmarshal([]byte(post(t, two, "h1", `{"header":"x","body":2}`)), &second))
	list := func(addr string) string { return get(t, addr, "/v1/channel") }
	for _, addr := range []string{one, two} {
		eventually(t, "the list has the sum over both servers", func() bool {
			return strings.Contains(list(addr), `{"channel_name":"h1","cnt":3,"rpm":2}`)
		})
		eventually(t, "presence has all clients", func() bool { // presence is shared shortly after the counts
			return strings.Contains(get(t, addr, "/v1/channel/h1/presence"), `"cnt":3`)
		})
	}
	require.Equal(t, get(t, one, "/v1/channel/h1/history"), get(t, two, "/v1/channel/h1/history"))

	require.False(t, servers[0].Ended())
	servers[0].Kill()
	resumed := join(t, two, "h1", second.Epoch+":1")
	m := receive(t, resumed)
	require.EqualValues(t, 2, m.Offset)
	eventually(t, "the clients of the killed server have left", func() bool {
		return strings.Contains(list(two), `{"channel_name":"h1","cnt":2,`) &&
			strings.Contains(get(t, two, "/v1/channel/h1/presence"), `"cnt":2}`)
	})
	for _, p := range servers {
		require.NotContains(t, p.log.String(), password)
	}
}
