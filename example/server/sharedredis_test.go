//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Two servers share a Redis that requires TLS and a password. Both have the
// same list and history, and a client of one resumes at the other. When one is
// killed, its subscribers leave the list.
func TestServersShareARedis(t *testing.T) {
	const password = "hush-hush"
	cert, key, _ := certificate(t)
	tls := strconv.Itoa(redistest.FreePort(t))
	redistest.Start(t, "--requirepass", password, "--tls-port", tls, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")

	binary := build(t)
	var addrs []string
	var servers []*exec.Cmd
	var logs []*records
	for range 2 {
		cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-history", "h*=100,1h", "-log-level", "debug", "-redis-prefix", "app")
		cmd.Env = append(os.Environ(), "CHANNELS_REDIS=rediss://:"+password+"@127.0.0.1:"+tls+"/0", "SSL_CERT_FILE="+cert)
		log := newRecords()
		cmd.Stderr = log
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		addrs, servers, logs = append(addrs, log.wait(t, "listening")["addr"].(string)), append(servers, cmd), append(logs, log)
		redistest.Eventually(t, "the server is ready", func() bool {
			code, _ := call(t, "GET", "http://"+addrs[len(addrs)-1]+"/readyz", "")
			return code == 200
		})
	}
	for i, n := range []int{2, 1} {
		for range n {
			join(t, addrs[i], "h1")
		}
	}
	require.Contains(t, post(t, addrs[0], "h1", `{"header":"x","body":1}`), `"offset":1`)
	var second struct{ Epoch string }
	require.NoError(t, json.Unmarshal([]byte(post(t, addrs[1], "h1", `{"header":"x","body":2}`)), &second))
	list := func(addr string) string { return get(t, addr, "/v1/channel") }
	for _, addr := range addrs {
		redistest.Eventually(t, "the list has the sum over both servers", func() bool {
			return strings.Contains(list(addr), `{"channel_name":"h1","cnt":3,"rpm":2}`)
		})
		redistest.Eventually(t, "presence has all clients", func() bool { // presence is shared shortly after the counts
			return strings.Contains(get(t, addr, "/v1/channel/h1/presence"), `"cnt":3`)
		})
	}
	require.Equal(t, get(t, addrs[0], "/v1/channel/h1/history"), get(t, addrs[1], "/v1/channel/h1/history"))

	require.NoError(t, servers[0].Process.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resumed, _, err := websocket.Dial(ctx, "ws://"+addrs[1]+"/channel/h1/?since="+second.Epoch+":1", nil)
	require.NoError(t, err)
	defer resumed.CloseNow()
	m, err := next(resumed)
	require.NoError(t, err)
	require.EqualValues(t, 2, m.Offset)
	redistest.Eventually(t, "the clients of the killed server have left", func() bool {
		return strings.Contains(list(addrs[1]), `{"channel_name":"h1","cnt":2,`) &&
			strings.Contains(get(t, addrs[1], "/v1/channel/h1/presence"), `"cnt":2}`)
	})
	for _, log := range logs {
		require.NotContains(t, log.String(), password)
	}
}
