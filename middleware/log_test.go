package middleware_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/middleware"
)

// fixed removes from a record the attributes that differ from run to run.
func fixed(t *testing.T, r map[string]any) map[string]any {
	t.Helper()
	require.Contains(t, r, "duration")
	require.Greater(t, r["duration"], 0.0)
	require.NotEmpty(t, r["remote"])
	for _, k := range []string{"duration", "remote", "level"} {
		delete(r, k)
	}
	return r
}

func TestLogOneRecordPerRequest(t *testing.T) {
	read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
		w.WriteHeader(500) // too late
		io.WriteString(w, "hello")
	})
	for name, c := range map[string]struct {
		h    http.Handler
		user string
		want map[string]any
	}{
		"all":        {read, "ann", map[string]any{"msg": "request", "method": "POST", "path": "/a/b", "status": 201.0, "bytes_in": 4.0, "bytes_out": 5.0, "user": "ann"}},
		"nothing":    {http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "", map[string]any{"msg": "request", "method": "POST", "path": "/a/b", "status": 200.0, "bytes_in": 0.0, "bytes_out": 0.0}},
		"recovered":  {middleware.Recover(slog.New(slog.DiscardHandler))(panics("boom")), "", map[string]any{"msg": "request", "method": "POST", "path": "/a/b", "status": 500.0, "code": "internal", "bytes_in": 0.0, "bytes_out": 101.0}},
		"read from":  {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, strings.NewReader("12345678")) }), "", map[string]any{"msg": "request", "method": "POST", "path": "/a/b", "status": 200.0, "bytes_in": 0.0, "bytes_out": 8.0}},
		"flush only": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.NewResponseController(w).Flush() }), "", map[string]any{"msg": "request", "method": "POST", "path": "/a/b", "status": 200.0, "bytes_in": 0.0, "bytes_out": 0.0}},
	} {
		t.Run(name, func(t *testing.T) {
			rs, log := newRecords()
			h := stack(c.h, asUser, middleware.Log(middleware.LogOptions{Logger: log}).Handler)
			try(h, "POST", "/a/b?token=secret", "body", "X-User", c.user, "Authorization", "secret")
			require.Len(t, rs.Records(), 1)
			got := fixed(t, rs.Records()[0])
			if name == "recovered" {
				c.want["bytes_out"] = got["bytes_out"]
			}
			require.Equal(t, c.want, got)
			require.NotContains(t, rs.String(), "secret")
		})
	}
	t.Run("early hints are not an answer", func(t *testing.T) {
		rs, log := newRecords()
		serveOnly(t, middleware.Log(middleware.LogOptions{Logger: log}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(404)
		}))).do("GET", "/", "")
		require.Equal(t, 404.0, rs.wait(t, 1)["status"])
	})
	t.Run("a panic is passed on", func(t *testing.T) {
		rs, log := newRecords()
		require.Panics(t, func() {
			try(middleware.Log(middleware.LogOptions{Logger: log}).Handler(panics("boom")), "GET", "/", "")
		})
		require.Equal(t, map[string]any{"msg": "request", "method": "GET", "path": "/", "status": 0.0, "bytes_in": 0.0, "bytes_out": 0.0, "aborted": true}, fixed(t, rs.Records()[0]))
	})
	t.Run("skip, level, long", func(t *testing.T) {
		rs, log := newRecords()
		h := middleware.Log(middleware.LogOptions{Logger: log, Level: slog.LevelWarn, Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" }}).Handler(whoami)
		try(h, "GET", "/healthz", "")
		require.Empty(t, rs.Records())
		try(h, "GET", "/"+strings.Repeat("x", 5000), "")
		r := rs.Records()[0]
		require.Equal(t, "WARN", r["level"])
		require.Less(t, len(r["path"].(string)), 520)
	})
}

// A request that an inner middleware refuses is logged with its user.
func TestLogAroundJWT(t *testing.T) {
	rs, log := newRecords()
	h := stack(whoami, middleware.Log(middleware.LogOptions{Logger: log}).Handler, apiKeys(), hs256(middleware.JWTOptions{}))
	try(h, "GET", "/", "")
	try(h, "GET", "/", "", "Authorization", "Bearer "+token("ann", nil))
	try(h, "GET", "/", "", "X-API-Key", billingKey)
	all := rs.Records()
	require.Equal(t, 401.0, all[0]["status"])
	require.NotContains(t, all[0], "user")
	require.Equal(t, "ann", all[1]["user"])
	require.Equal(t, "apikey:billing", all[2]["user"])
}

func logged(t *testing.T, o channels.Options) (*site, *records, *middleware.RequestLog) {
	rs, log := newRecords()
	l := middleware.Log(middleware.LogOptions{Logger: log})
	o.ReplicaID = "n"
	o.OnDisconnect = l.OnDisconnect
	if o.OnConnect == nil {
		o.OnConnect = l.OnConnect
	}
	return serve(t, o, l.Handler, asUser), rs, l
}

// A WebSocket is logged when it ends, with its totals.
func TestLogAWebSocket(t *testing.T) {
	const in, ack = `{"header":"x","body":1}`, `{"header":"exchange","body":{"msg":"ok"}}`
	s, rs, l := logged(t, channels.Options{})
	w := s.join("a", "X-User", "ann")
	w.send(in)
	w.want(in)
	w.want(ack)
	require.Empty(t, rs.Records())
	require.Equal(t, 1, l.Open())
	w.c.CloseNow()
	record := fixed(t, rs.wait(t, 1))
	id, _ := record["client"].(string)
	require.Regexp(t, "^n-[a-z2-7]{6}-1$", id)
	want := map[string]any{"msg": "websocket", "method": "GET", "path": "/channel/a/", "status": 101.0, "user": "ann", "client": id,
		"bytes_in": float64(6 + len(in)), "bytes_out": float64(2 + len(in) + 2 + len(ack)), "messages_in": 1.0, "messages_out": 2.0}
	require.Equal(t, want, record)

	w = s.join("b")
	s.Hub.DisconnectClient(t.Context(), strings.TrimSuffix(id, "1")+"2")
	w.wantError("disconnected")
	w.read() // answers the close frame
	got := rs.wait(t, 2)
	require.Equal(t, "disconnected", got["reason"])
	require.NotContains(t, got, "user")
	require.Zero(t, l.Open())
	require.Len(t, rs.Records(), 2)
}

func TestLogAStream(t *testing.T) {
	s, rs, l := logged(t, channels.Options{})
	next, end := s.events("a", "X-User", "ann")
	require.Equal(t, 200, s.publish("a", "1").status)
	require.Equal(t, `{"header":"x","body":1}`, next())
	end()
	got := fixed(t, rs.wait(t, 2)) // the first record is the publish
	require.Equal(t, map[string]any{"msg": "request", "method": "GET", "path": "/channel/a/", "status": 200.0, "user": "ann",
		"bytes_in": 0.0, "bytes_out": float64(len("retry: 1234\ndata: " + `{"header":"x","body":1}` + "\n\n")), "messages_out": 1.0}, got)
	require.Zero(t, l.Open())
}

// A failed handshake is logged as one record, like any other request.
func TestLogAHandshakeThatFails(t *testing.T) {
	s, rs, l := logged(t, channels.Options{})
	a := s.do("GET", "/channel/a/", "", "Connection", "Upgrade", "Upgrade", "websocket")
	require.Equal(t, 400, a.status)
	require.Equal(t, 400.0, rs.wait(t, 1)["status"])
	require.Len(t, rs.Records(), 1)
	require.Zero(t, l.Open())

	// A hook of the app, behind the one of the log, refuses the connection.
	var refusing *middleware.RequestLog
	s, rs, refusing = logged(t, channels.Options{OnConnect: func(ctx context.Context, c channels.Client) error {
		refusing.OnConnect(ctx, c)
		return channels.ErrForbidden
	}})
	_, _, err := s.dial("/channel/a/", websocket.DialOptions{})
	require.Error(t, err)
	require.Equal(t, 403.0, rs.wait(t, 1)["status"])
	require.Zero(t, refusing.Open())
}

// Without the hooks a WebSocket is logged once too, when it begins.
func TestLogAWebSocketWithoutTheHooks(t *testing.T) {
	rs, log := newRecords()
	s := serve(t, channels.Options{}, middleware.Log(middleware.LogOptions{Logger: log}).Handler)
	s.join("a")
	r := rs.wait(t, 1)
	require.Equal(t, "request", r["msg"])
	require.Equal(t, 101.0, r["status"])
}

// The hooks do nothing for a connection that the log does not know.
func TestLogHooksAlone(t *testing.T) {
	rs, log := newRecords()
	l := middleware.Log(middleware.LogOptions{Logger: log})
	require.NoError(t, l.OnConnect(t.Context(), channels.Client{ID: "n-1"}))
	l.OnDisconnect(channels.Client{ID: "n-1"}, nil)
	require.Empty(t, rs.Records())
}

// The log keeps little per WebSocket, however long its request line was.
func TestLogKeepsNothingOfALongRequestLine(t *testing.T) {
	const n, long = 20, 500_000
	access := middleware.Log(middleware.LogOptions{Logger: slog.New(slog.DiscardHandler)})
	ids := make(chan string, 1)
	s := serveOnly(t, access.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		access.OnConnect(r.Context(), channels.Client{ID: <-ids})
		nc, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			nc.Close()
		}
	})))
	before := hubtest.Used()
	for i := range n {
		ids <- fmt.Sprint(i)
		c := s.DialRaw()
		c.Send("GET /a?" + strings.Repeat("x", long) + " HTTP/1.1\r\nHost: x\r\n\r\n")
		io.Copy(io.Discard, c.BR) // until the handler has ended
		c.Close()
	}
	require.Equal(t, n, access.Open())
	basetest.Eventually(t, "the handlers' goroutines have ended", func() bool { return runtime.NumGoroutine() <= before.Goroutines })
	before.Held(t, n*long/2)
	runtime.KeepAlive(access)
}

func TestLogClipsTheMethod(t *testing.T) {
	for name, m := range map[string]func(*slog.Logger) wrapper{
		"Log":     func(log *slog.Logger) wrapper { return middleware.Log(middleware.LogOptions{Logger: log}).Handler },
		"Recover": func(log *slog.Logger) wrapper { return middleware.Recover(log) },
	} {
		rs, log := newRecords()
		func() {
			defer func() { recover() }()
			try(m(log)(panics("boom")), strings.Repeat("A", 50_000), "/", "")
		}()
		require.Less(t, len(rs.Records()[0]["method"].(string)), 520, name)
	}
}

// A handler may return while a goroutine still reads the body, as the transport
// of a reverse proxy does.
func TestLogABodyThatIsReadAfterTheHandler(t *testing.T) {
	rs, log := newRecords()
	var reading sync.WaitGroup
	h := middleware.Log(middleware.LogOptions{Logger: log}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		first := make(chan struct{})
		reading.Go(func() {
			r.Body.Read(make([]byte, 1))
			close(first)
			io.Copy(io.Discard, r.Body)
		})
		<-first
	}))
	try(h, "POST", "/", strings.Repeat("x", 1<<20))
	reading.Wait()
	require.GreaterOrEqual(t, rs.Records()[0]["bytes_in"], 1.0)
}

// A refusal that is sent over a stream or a WebSocket, where a page can read
// the reason, is not logged as a success.
func TestLogRefusalsInStreamsAndWebSockets(t *testing.T) {
	var refusing *middleware.RequestLog
	s, rs, refusing := logged(t, channels.Options{OnConnect: func(ctx context.Context, c channels.Client) error {
		refusing.OnConnect(ctx, c)
		return &channels.Error{Code: "busy", Status: 429, Message: "later"}
	}, Authorize: func(_ context.Context, r channels.Request) error {
		if r.Channel == "secret" {
			return channels.ErrForbidden
		}
		return nil
	}})
	page := websocket.DialOptions{HTTPHeader: http.Header{"Origin": {s.HTTP.URL}}}
	for i, c := range []struct {
		channel string
		status  float64
		code    string
	}{{"secret", 403, "forbidden"}, {"late", 429, "busy"}} {
		w, _, err := s.dial("/channel/"+c.channel+"/", page)
		require.NoError(t, err, "the page gets the refusal over the WebSocket")
		w.c.CloseNow()
		got := rs.wait(t, i+1)
		require.Equal(t, "request", got["msg"])
		require.Equal(t, c.status, got["status"])
		require.Equal(t, c.code, got["code"])
	}
	a := s.do("GET", "/channel/late/", "", "Accept", "text/event-stream")
	require.Equal(t, 200, a.status)
	got := rs.wait(t, 3)
	require.Equal(t, 429.0, got["status"])
	require.Equal(t, "busy", got["code"])
	require.Equal(t, float64(len(a.body)), got["bytes_out"])
	require.Len(t, rs.Records(), 3)
	require.Zero(t, refusing.Open())
}
