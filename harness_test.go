package channels_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

const patience = hubtest.Patience

// server is a hub behind a real HTTP server on a loopback port. The fields that
// nearly every test uses have short names.
type server struct {
	*hubtest.Server
	t    *testing.T
	hub  *channels.Hub
	http *httptest.Server
	log  *logBuffer
}

// serve starts a hub and a server with its handler, wrapped by the middleware.
// Both end with the test.
func serve(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *server {
	t.Helper()
	s := newServer(t, o, middleware...)
	s.http.Start()
	return s
}

// serveTLS is serve with TLS, and HTTP/2 for who wants it.
func serveTLS(t *testing.T, o channels.Options) *server {
	t.Helper()
	s := newServer(t, o)
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	return s
}

func newServer(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *server {
	t.Helper()
	s := hubtest.New(t, o, middleware...)
	return &server{s, t, s.Hub, s.HTTP, s.Log}
}

// stall opens a WebSocket with a small receive buffer, which is not read.
func (s *server) stall(channel string) *wsClient {
	s.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			c.(*net.TCPConn).SetReadBuffer(8 << 10)
		}
		return c, err
	}}
	s.t.Cleanup(tr.CloseIdleConnections)
	w, _, err := s.tryDial("/channel/"+url.PathEscape(channel)+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	require.NoError(s.t, err)
	return w
}

type logBuffer = hubtest.Log

// --- HTTP

// answer is what an HTTP request got.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

// code is the error's code, or "".
func (a answer) code() string {
	if m := endedStream.FindStringSubmatch(a.body); m != nil {
		return m[1]
	}
	e, _ := a.json["error"].(map[string]any)
	c, _ := e["code"].(string)
	return c
}

// endedStream is the stream that a client gets instead of an error that will pass.
var endedStream = regexp.MustCompile(`^retry: \d{4,}\ndata: \{"header":"error","body":\{"code":"(\w+)","msg":"[^\n]+"\}\}\n\n$`)

// wantEnded wants a stream that ended at once, and said why.
func (a answer) wantEnded(t *testing.T, code string) {
	t.Helper()
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, "text/event-stream; charset=utf-8", a.header.Get("Content-Type"))
	require.Equal(t, code, a.code(), a.body)
	require.NotEmpty(t, a.header.Get("Retry-After"))
}

// message is the error's message, or "".
func (a answer) message() string {
	e, _ := a.json["error"].(map[string]any)
	c, _ := e["message"].(string)
	return c
}

// do makes a request; header holds names and values in turn.
func (s *server) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.http.URL+path, strings.NewReader(body))
	require.NoError(s.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := s.http.Client().Do(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(s.t, err)
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(b)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && len(b) > 0 {
		require.NoError(s.t, json.Unmarshal(b, &a.json), "body: %s", b)
	}
	return a
}

// publish publishes over HTTP and wants it to succeed.
func (s *server) publish(channel, header, body string) answer {
	s.t.Helper()
	a := s.do("POST", "/v1/channel/"+url.PathEscape(channel)+"/publish", `{"header":"`+header+`","body":`+body+`}`)
	require.Equal(s.t, 200, a.status, a.body)
	return a
}

// --- WebSocket

// wsClient is a real WebSocket connection.
type wsClient struct {
	t *testing.T
	c *websocket.Conn
}

// message is what a client receives.
type message struct{ hubtest.Message }

func (m message) since() string {
	return "?since=" + (channels.Position{Epoch: m.Epoch, Offset: m.Offset}).String()
}

func (m message) errorCode() string { return m.ErrorCode() }

// tryDial opens a WebSocket to a channel, or returns why not.
func (s *server) tryDial(path string, o *websocket.DialOptions) (*wsClient, *http.Response, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if o == nil {
		o = &websocket.DialOptions{}
	}
	if o.HTTPClient == nil {
		// Not the server's client: its transport keeps idle connections.
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		s.t.Cleanup(tr.CloseIdleConnections)
		o.HTTPClient = &http.Client{Transport: tr}
	}
	c, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+path, o)
	if err != nil {
		return nil, resp, err
	}
	c.SetReadLimit(64 << 20)
	s.t.Cleanup(func() { c.CloseNow() })
	return &wsClient{s.t, c}, resp, nil
}

// join opens a WebSocket to a channel; query begins with "?" where there is one.
func (s *server) join(channel, query string) *wsClient {
	s.t.Helper()
	w, _, err := s.tryDial("/channel/"+url.PathEscape(channel)+"/"+query, nil)
	require.NoError(s.t, err)
	return w
}

// read returns the next message, or why there is none.
func (w *wsClient) read() (message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := w.c.Read(ctx)
	if err != nil {
		return message{}, err
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return m, errors.Join(err, errors.New(string(b)))
	}
	return m, nil
}

func (w *wsClient) next() message {
	w.t.Helper()
	m, err := w.read()
	require.NoError(w.t, err)
	return m
}

// want wants the next message to be this one.
func (w *wsClient) want(header, body string) message {
	w.t.Helper()
	m := w.next()
	require.Equal(w.t, header, m.Header, "body: %s", m.Body)
	require.Equal(w.t, body, string(m.Body))
	return m
}

func (w *wsClient) send(text string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(w.t, w.c.Write(ctx, websocket.MessageText, []byte(text)))
}

// wantClose reads up to the close frame, and returns its error after the messages before it.
func (w *wsClient) wantClose(code websocket.StatusCode) (before []message, ce websocket.CloseError) {
	w.t.Helper()
	for {
		m, err := w.read()
		if err == nil {
			before = append(before, m)
			continue
		}
		require.ErrorAs(w.t, err, &ce)
		require.Equal(w.t, code, ce.Code, "reason %q", ce.Reason)
		return before, ce
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	hubtest.Until(t, what, ok)
}

func ctxT(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func msg(header, body string) channels.Message { return hubtest.Msg(header, body) }

// id is the id of the hub's nth client.
func (s *server) id(n int) string { return channels.IDPrefix(s.hub) + strconv.Itoa(n) }

// disconnect and unsubscribe return how many there were on this replica.
func disconnect(h *channels.Hub, idOrUser string) int {
	n, _ := h.DisconnectClient(context.Background(), idOrUser)
	m, _ := h.DisconnectUser(context.Background(), idOrUser)
	return n + m
}

func unsubscribe(h *channels.Hub, idOrUser, channel string) int {
	n, _ := h.UnsubscribeClient(context.Background(), idOrUser, channel)
	m, _ := h.UnsubscribeUser(context.Background(), idOrUser, channel)
	return n + m
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func code(err error) string {
	if e, ok := err.(*channels.Error); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}
