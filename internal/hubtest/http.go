package hubtest

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// Pairs is a header of names and values in turn.
func Pairs(header []string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	return h
}

// Request makes a request, which must get an answer. header holds names and values in
// turn; Host is the request's own.
func Request(t *testing.T, ctx context.Context, client *http.Client, method, url, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header = Pairs(header)
	r.Host = cmp.Or(r.Header.Get("Host"), r.Host)
	resp, err := client.Do(r)
	require.NoError(t, err)
	return resp
}

// Body reads an answer's body to its end.
func Body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// Dial opens a WebSocket at http://HOST/PATH, or returns why not. It ends with the test.
func Dial(t testing.TB, url string, o websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
	defer cancel()
	if o.HTTPClient == nil {
		// Not the server's client: its transport keeps idle connections.
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(tr.CloseIdleConnections)
		o.HTTPClient = &http.Client{Transport: tr}
	}
	c, resp, err := websocket.Dial(ctx, url, &o)
	if err == nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, resp, err
}
