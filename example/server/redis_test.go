package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestRedisURLs(t *testing.T) {
	for _, url := range []string{
		"redis://127.0.0.1:6379/0", "rediss://user@redis.example:6380/2?read_timeout=1s", "unix:///run/redis.sock?db=1",
		"redis+cluster://a:1?addr=b:2", "rediss+cluster://a:1", "redis+sentinel://a:1/0?master_name=main&addr=b:2",
	} {
		parsed(t, nil, "-redis", url)
	}
	cfg := parsed(t, map[string]string{"CHANNELS_REDIS": "redis://:hidden@a:1/0", "CHANNELS_REDIS_PREFIX": "app"})
	require.Equal(t, redisConfig{"redis://:hidden@a:1/0", "app"}, cfg.redis)

	for url, says := range map[string]string{
		"127.0.0.1:6379":              "it must be redis://",
		"redis":                       "redis://HOST",
		"http://127.0.0.1":            `"http"`,
		"redis://":                    "no host",
		"redis+ring://a:1":            `"redis+ring"`,
		"redis://a:1/x":               "x",
		"redis://a:1?nonsense=1":      "nonsense",
		"redis+sentinel://a:1":        "master_name",
		"redis://a:1/0?read_timeout=": "",
	} {
		for _, password := range []string{"", ":hidden@"} {
			value := strings.Replace(url, "://", "://"+password, 1)
			if says == "" || value == "redis://:hidden@" {
				continue
			}
			wantRefused(t, map[string]string{"CHANNELS_REDIS": value}, nil, says, "CHANNELS_REDIS")
		}
	}
	for _, password := range []string{"12/hidden", "12?hidden", "12#hidden", "hidden/34", "hid%zz", "hidden?addr"} {
		wantRefused(t, map[string]string{"CHANNELS_REDIS": "redis://:" + password + "@a:1/0"}, nil)
	}
	wantRefused(t, nil, []string{"-redis", "redis://:hidden@a:1"}, "CHANNELS_REDIS in the environment")
	_, err := parse([]string{"-redis", "redis://a:1", "-redis-prefix", "a{b}"}, lookup(nil), io.Discard)
	require.ErrorContains(t, err, "-redis-prefix")
}

// The server starts and serves while Redis is down, and gets ready when Redis
// is up.
func TestServerWaitsForRedis(t *testing.T) {
	r := redistest.New(t)
	addr, _ := start(t, nil, "-history", "h*=10,1h", "-redis", "redis://"+r.Addr+"/0", "-redis-prefix", "app")

	want := func(status int, method, path, body string) {
		t.Helper()
		webtest.Want(t, http.DefaultClient, status, method, "http://"+addr+path, body)
	}
	publish := func(channel string, status int) {
		t.Helper()
		want(status, "POST", "/v1/channel/"+channel+"/publish", `{"header":"x","body":1}`)
	}
	want(503, "GET", "/readyz", "")
	want(200, "GET", "/healthz", "")
	publish("plain", 200)
	publish("h1", 503)
	r.Start()
	eventually(t, "the server is ready", func() bool {
		code, _ := call(t, "GET", "http://"+addr+"/readyz", "")
		return code == 200
	})
	publish("h1", 200)
	require.Contains(t, r.Do("KEYS", "*"), "app:log:{h1}")
}
