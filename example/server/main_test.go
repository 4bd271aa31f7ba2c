package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for an event that must come.
const patience = time.Minute

// records collects a JSON log and finds the first record with a given message.
type records struct {
	mu    sync.Mutex
	b     bytes.Buffer
	wrote chan struct{} // buffered, 1: there was a write
}

func newRecords() *records { return &records{wrote: make(chan struct{}, 1)} }

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.wrote <- struct{}{}:
	default:
	}
	return r.b.Write(p)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// wait waits for a record with this message. Only one goroutine may wait at a
// time.
func (r *records) wait(t *testing.T, msg string) map[string]any {
	t.Helper()
	return r.waitFor(t, msg, "msg", msg)
}

// waitFor waits for a record with this message in which key has this value.
func (r *records) waitFor(t *testing.T, msg, key, value string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		for _, line := range strings.Split(r.String(), "\n") {
			var rec map[string]any
			if json.Unmarshal([]byte(line), &rec) == nil && rec["msg"] == msg && rec[key] == value {
				return rec
			}
		}
		select {
		case <-r.wrote:
		case <-timeout:
			require.FailNow(t, "never logged: "+msg, r.String())
		}
	}
}

// join subscribes to a channel; if since is given, from that position on.
func join(t *testing.T, addr, channel string, since ...string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	query := ""
	if len(since) > 0 {
		query = "?since=" + since[0]
	}
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/channel/"+channel+"/"+query, nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.CloseNow() })
	return c
}

type message struct {
	Header string
	Body   json.RawMessage
	Offset uint64
	Epoch  string
}

func next(c *websocket.Conn) (m message, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

func get(t *testing.T, addr, path string) string {
	t.Helper()
	return bodyOf(t)(http.Get("http://" + addr + path))
}

func post(t *testing.T, addr, channel, text string) string {
	t.Helper()
	return bodyOf(t)(http.Post("http://"+addr+"/v1/channel/"+channel+"/publish", "application/json", strings.NewReader(text)))
}

// bodyOf returns a function that reads the answer to a request, which must
// succeed.
func bodyOf(t *testing.T) func(*http.Response, error) string {
	return func(resp *http.Response, err error) string {
		t.Helper()
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode, "%s", b)
		return string(b)
	}
}

// With -drain 0, connections are closed at once, but each client gets its own
// time to reconnect.
func TestDrainAtOnce(t *testing.T) {
	cfg, err := parse([]string{"-addr", "127.0.0.1:0", "-drain", "0", "-drain-delay", "0"}, lookup(nil), io.Discard)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := newRecords()
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg, slog.New(slog.NewJSONHandler(log, nil))) }()
	addr := log.wait(t, "listening")["addr"].(string)
	var cs []*websocket.Conn
	for range 20 {
		cs = append(cs, join(t, addr, "a"))
	}
	cancel()
	var all sync.WaitGroup
	for _, c := range cs {
		all.Go(func() {
			m, err := next(c)
			if err != nil || m.Header != "reconnect" || string(m.Body) == `{"after_ms":0}` {
				t.Errorf("%s %s, %v", m.Header, m.Body, err)
			}
			if _, err := next(c); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("ended with %v", err)
			}
		})
	}
	all.Wait()
	require.NoError(t, <-done)
}

func TestRunFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	taken := l.Addr().String()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"an address in use":           {[]string{"-addr", taken}, "-addr: listen tcp " + taken + ": bind: address already in use"},
		"an address of no use":        {[]string{"-addr", "nonsense"}, "-addr: listen tcp: address nonsense"},
		"an address of a mesh in use": {[]string{"-mesh", "zmq", "-mesh-listen", "tcp://" + taken, "-mesh-peers", "tcp://a:1"}, "-mesh-listen: listen tcp " + taken + ": bind: address already in use"},
		"an address of ZeroMQ in use": {[]string{"-addr", "127.0.0.1:0", "-zmq-rep", "tcp://" + taken}, "-zmq-rep: listen tcp " + taken + ": bind: address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := parse(c.args, lookup(nil), io.Discard)
			require.NoError(t, err)
			err = run(t.Context(), cfg, slog.New(slog.NewJSONHandler(io.Discard, nil)))
			require.ErrorContains(t, err, c.says)
			require.True(t, strings.HasPrefix(err.Error(), "-"), "the error must begin with the flag: %v", err)
		})
	}
}
