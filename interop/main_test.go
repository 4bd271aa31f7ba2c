// Package interop_test proves that the hub works behind the routers that apps
// use, with their middleware. It is a module of its own, so that users of the
// hub do not get them as dependencies.
package interop_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is the origin of the app's pages.
const app = "https://app.example.com"

// patience is how long a test waits for an expected event.
const patience = time.Minute

// options are those of a hub with history, whose answers are long enough to
// compress.
func options() channels.Options {
	return channels.Options{
		Channel:        func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} },
		AllowedOrigins: []string{app},
	}
}

// check uses a hub in all ways that clients do, behind a router that has the
// hub's handler at /rt/. header is for each request.
func check(t *testing.T, o channels.Options, router func(rt http.Handler) http.Handler, header http.Header) {
	t.Helper()
	s := hubtest.Serve(t, o, func(hub http.Handler) http.Handler { return router(http.StripPrefix("/rt", hub)) }).HTTP
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}

	// A WebSocket: subscribe, and publish over it.
	handshake := http.Header{"Accept-Encoding": {"gzip, deflate, br"}, "Origin": {app}}
	maps.Copy(handshake, header)
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.URL, "http")+"/rt/channel/a/", &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"channels"}, HTTPHeader: handshake})
	require.NoError(t, err)
	defer ws.CloseNow()
	require.Equal(t, "channels", ws.Subprotocol())
	read := func(part string) {
		t.Helper()
		_, b, err := ws.Read(ctx)
		require.NoError(t, err)
		require.Contains(t, string(b), part)
	}
	require.NoError(t, ws.Write(ctx, websocket.MessageText, []byte(`{"header":"ws","body":1}`)))
	read(`{"header":"ws","body":1,"offset":1`)
	read(`{"header":"exchange"`)

	// A stream: each event arrives at once, and so do the headers.
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/rt/channel/a/", nil)
	require.NoError(t, err)
	maps.Copy(r.Header, header)
	r.Header.Set("Accept", "text/event-stream")
	resp, err := client.Do(r) // accepts gzip, as browsers do
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	event := func(part string) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				require.Contains(t, data, part)
				return
			}
		}
		require.FailNow(t, "the stream has ended", "%v", lines.Err())
	}

	// Publishing over HTTP: both receive the messages.
	publish := func(path, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/rt"+path, strings.NewReader(body))
		require.NoError(t, err)
		maps.Copy(r.Header, header)
		r.Header.Set("Origin", app)
		resp, err := client.Do(r) // asks for gzip and unpacks it
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		require.Contains(t, string(b), `{"status":"`)
		require.Len(t, resp.Header.Values("Access-Control-Allow-Origin"), 1)
		return resp
	}
	require.Equal(t, 200, publish("/v1/channel/a/publish", `{"header":"http","body":2}`).StatusCode)
	read(`{"header":"http","body":2`)
	event(`{"header":"http","body":2`)
	require.NoError(t, ws.Write(ctx, websocket.MessageText, []byte(`{"header":"ws","body":3}`)))
	event(`{"header":"ws","body":3`)
	require.Equal(t, 400, publish("/v1/channel/a/publish", `{`).StatusCode, "errors too")
	require.Equal(t, 200, publish("/v1/publish", `{"channels":["a","b"],"header":"both","body":4}`).StatusCode)
	event(`{"header":"both","body":4`)
}
