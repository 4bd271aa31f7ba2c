package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMetrics(t *testing.T) {
	addr, log := start(t, nil, "-metrics", "127.0.0.1:0", "-metrics-channels", "chat.*")
	operators := log.wait(t, "serves metrics")["addr"].(string)
	post(t, addr, "chat.a", `{"header":"m","body":1}`)
	text := get(t, operators, "/metrics")
	require.Contains(t, text, "\nchannels_publishes_total{door=\"http\",outcome=\"ok\"} 1\n")
	require.Contains(t, text, "\nchannels_pattern_published_messages_total{pattern=\"chat.*\"} 1\n")
	require.NotContains(t, text, "chat.a")
	require.Contains(t, text, "\ngo_goroutines ")
	require.Contains(t, text, "\npromhttp_metric_handler_requests_total{")
	require.Contains(t, get(t, operators, "/debug/pprof/goroutine?debug=1"), "goroutine profile: total")
	require.Contains(t, get(t, operators, "/debug/pprof/"), "heap")

	require.Contains(t, get(t, operators, "/"), `<a href="metrics">`)
	for path, at := range map[string]string{"/metrics": addr, "/debug/pprof/": addr, "/v1/channel": operators, "/x": operators} {
		code, _ := call(t, "GET", "http://"+at+path, "")
		require.Equal(t, http.StatusNotFound, code, "%s%s", at, path)
	}
	code, _ := call(t, "GET", "http://"+operators+"/metrics", "", "Host", "evil.example")
	require.Equal(t, http.StatusMisdirectedRequest, code)
	own := "http://" + operators
	for _, c := range []struct {
		want   int
		header []string
	}{
		{200, []string{"Sec-Fetch-Site", "none"}}, {200, []string{"Sec-Fetch-Site", "same-origin", "Origin", own}}, {200, []string{"Origin", own}},
		{403, []string{"Sec-Fetch-Site", "cross-site"}}, {403, []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"}},
		{403, []string{"Origin", "https://evil.example"}}, {403, []string{"Origin", "null"}},
	} {
		for _, path := range []string{"/metrics", "/debug/pprof/cmdline"} { // a profile would take its second
			code, _ := call(t, "GET", own+path, "", c.header...)
			require.Equal(t, c.want, code, "%s %v", path, c.header)
		}
	}
	require.NotContains(t, log.String(), "-metrics is not a loopback address")
}

func TestMetricsForOthersAreWarnedAbout(t *testing.T) {
	_, log := start(t, nil, "-metrics", "0.0.0.0:0")
	require.Equal(t, "WARN", log.waitFor(t, "-metrics is not a loopback address: whoever reaches it can read this process's memory and slow it down; let only Prometheus and operators in", "level", "WARN")["level"])
}
