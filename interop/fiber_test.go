package interop_test

import (
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// Fiber v2 serves a net/http handler through this adaptor, whose Flush does
// nothing: a stream would stay silent, and its member would stay for ever.
func TestFiberV2(t *testing.T) {
	var log basetest.Log
	hub := hubtest.NewHub(t, channels.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ask := fasthttpadaptor.NewFastHTTPHandler(hub.Handler())
	do := func(path string, header ...string) *fasthttp.Response {
		var req fasthttp.Request
		req.SetRequestURI("http://app.example.com" + path)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		var c fasthttp.RequestCtx
		c.Init(&req, nil, nil)
		done := make(chan struct{})
		go func() { // ends with the answer; the adaptor would hold a stream's answer back for ever
			ask(&c)
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(patience):
			require.FailNow(t, "no answer", path)
		}
		return &c.Response
	}
	stream := do("/channel/a/", "Accept", "text/event-stream")
	require.Equal(t, http.StatusInternalServerError, stream.StatusCode())
	require.Contains(t, string(stream.Body()), `"not_flushable"`)
	require.Contains(t, string(stream.Body()), "*fasthttpadaptor.netHTTPResponseWriter")
	require.Contains(t, string(stream.Body()), "net/http server of its own")
	require.Contains(t, log.String(), "netHTTPResponseWriter", "the log names the adaptor")
	require.Zero(t, hub.Stats().Connections)

	socket := do("/channel/a/", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
		"Origin", "http://app.example.com")
	require.Equal(t, http.StatusInternalServerError, socket.StatusCode())
	require.Contains(t, string(socket.Body()), `"not_hijackable"`)
	require.Equal(t, http.StatusOK, do("/v1/channel").StatusCode())
}
