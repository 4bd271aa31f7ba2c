package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

const patience = basetest.Patience

var eventually = basetest.Eventually

// records collects a JSON log.
type records struct{ basetest.Log }

// wait waits for a record with this message.
func (r *records) wait(t *testing.T, msg string) map[string]any {
	t.Helper()
	return r.waitFor(t, msg, "msg", msg)
}

// waitFor waits for a record with this message in which key has this value.
func (r *records) waitFor(t *testing.T, msg, key, value string) (found map[string]any) {
	t.Helper()
	eventually(t, "the record "+msg, func() bool {
		all := r.Records()
		i := slices.IndexFunc(all, func(m map[string]any) bool { return m["msg"] == msg && m[key] == value })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// join subscribes to a channel; if since is given, from that position on.
func join(t *testing.T, addr, channel string, since ...string) *websocket.Conn {
	t.Helper()
	query := ""
	if len(since) > 0 {
		query = "?since=" + since[0]
	}
	c, _, err := hubtest.Dial(t, "http://"+addr+"/channel/"+channel+"/"+query, websocket.DialOptions{})
	require.NoError(t, err)
	return c
}

type message = hubtest.Message

// receive returns the next message, which must come.
func receive(t *testing.T, c *websocket.Conn) message {
	t.Helper()
	m, err := webtest.Next(c)
	require.NoError(t, err)
	return m
}

func call(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	return webtest.Call(t, http.DefaultClient, method, url, body, header...)
}

// get returns the answer to a request, which must succeed.
func get(t *testing.T, addr, path string) string {
	t.Helper()
	return webtest.Want(t, http.DefaultClient, 200, "GET", "http://"+addr+path, "")
}

// post publishes a message and returns the answer.
func post(t *testing.T, addr, channel, text string) string {
	t.Helper()
	return webtest.Want(t, http.DefaultClient, 200, "POST", "http://"+addr+"/v1/channel/"+channel+"/publish", text)
}

// parsed returns the configuration that variables and flags make.
func parsed(t *testing.T, env map[string]string, args ...string) config {
	t.Helper()
	cfg, err := parse(args, lookup(env), io.Discard)
	require.NoError(t, err)
	return cfg
}

// wantRefused wants an error that says all this. It names flags, not the library's
// options, and neither it nor the output shows a secret.
func wantRefused(t *testing.T, env map[string]string, args []string, says ...string) {
	t.Helper()
	var out bytes.Buffer
	_, err := parse(args, lookup(env), &out)
	require.Error(t, err, "%q %q", args, env)
	for _, s := range says {
		require.ErrorContains(t, err, s, "%q %q", args, env)
	}
	for _, s := range []string{"Options", testSecret[:16], testKey, "too-short", "hid", "hush"} {
		require.NotContains(t, err.Error()+out.String(), s)
	}
}

// start runs a server in this process until the test ends, and returns its address.
func start(t *testing.T, env map[string]string, args ...string) (addr string, log *records) {
	t.Helper()
	cfg := parsed(t, env, append([]string{"-addr", "127.0.0.1:0", "-drain", "0", "-drain-delay", "0"}, args...)...)
	log = new(records)
	t.Cleanup(func() { // after it has ended, or has not
		if t.Failed() {
			t.Logf("the server wrote:\n%s", log.String())
		}
	})
	webtest.Run(t, func(ctx context.Context) error { return run(ctx, cfg, newLog(log, cfg.logLevel)) })
	return log.wait(t, "listening")["addr"].(string), log
}

func TestRunFails(t *testing.T) {
	taken := basetest.Listen(t).Addr().String()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"an address in use":            {[]string{"-addr", taken}, "-addr: listen tcp " + taken + ": bind: address already in use"},
		"an address of metrics in use": {[]string{"-addr", "127.0.0.1:0", "-metrics", taken}, "-metrics: listen tcp " + taken + ": bind: address already in use"},
		"an address of no use":         {[]string{"-addr", "nonsense"}, "-addr: listen tcp: address nonsense"},
		"an address of a mesh in use":  {[]string{"-mesh", "zmq", "-mesh-listen", "tcp://" + taken, "-mesh-peers", "tcp://a:1"}, "-mesh-listen: listen tcp " + taken + ": bind: address already in use"},
		"an address of ZeroMQ in use":  {[]string{"-addr", "127.0.0.1:0", "-zmq-rep", "tcp://" + taken}, "-zmq-rep: listen tcp " + taken + ": bind: address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), parsed(t, nil, c.args...), slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, c.says)
			require.True(t, strings.HasPrefix(err.Error(), "-"), "the error must begin with the flag: %v", err)
		})
	}
}
