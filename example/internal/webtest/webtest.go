// Package webtest has what the tests of the example programs share.
package webtest

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// Call makes a request and returns the answer's status and body. header holds
// alternating names and values.
func Call(t *testing.T, client *http.Client, method, url, body string, header ...string) (int, string) {
	t.Helper()
	resp := hubtest.Request(t, t.Context(), client, method, url, body, header...)
	return resp.StatusCode, hubtest.Body(t, resp)
}

// Want makes a request that must get this status, and returns the answer's body.
func Want(t *testing.T, client *http.Client, status int, method, url, body string, header ...string) string {
	t.Helper()
	got, text := Call(t, client, method, url, body, header...)
	require.Equal(t, status, got, "%s %s: %s", method, url, text)
	return text
}

// Next returns the next message that a WebSocket gets, or how the WebSocket has ended.
func Next(c *websocket.Conn) (m hubtest.Message, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// Run has a program run until the test ends or calls stop. It must end without an error.
func Run(t *testing.T, program func(ctx context.Context) error) (stop func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- program(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(basetest.Patience):
			require.FailNow(t, "it is still running")
		}
	})
	return stop
}

// PageLoadsOnlyItsOwn wants a handler to serve every file in the folder "page",
// with a policy that lets the page connect to its own host only. No file may
// load anything from elsewhere or insert text as HTML.
func PageLoadsOnlyItsOwn(t *testing.T, h http.Handler, files fs.FS) {
	t.Helper()
	kinds := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
	all, err := fs.Glob(files, "page/*")
	require.NoError(t, err)
	require.Contains(t, all, "page/index.html")
	for _, file := range all {
		address := "/" + strings.TrimSuffix(path.Base(file), "index.html")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", address, nil))
		require.Equal(t, http.StatusOK, w.Code, file)
		require.Contains(t, kinds, path.Ext(file))
		require.Contains(t, w.Header().Get("Content-Type"), kinds[path.Ext(file)])
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'self'; connect-src 'self' ws://example.com wss://example.com; ")
		require.NotRegexp(t, `(src|href)="(https?:)?//|url\(`, w.Body.String(), file)
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write`, w.Body.String(), file)
	}
}
