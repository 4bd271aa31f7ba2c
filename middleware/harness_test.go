package middleware_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/middleware"
)

const patience = basetest.Patience

type wrapper = func(http.Handler) http.Handler

// stack puts the middleware ms around h, the first outermost.
func stack(h http.Handler, ms ...wrapper) http.Handler {
	for _, m := range slices.Backward(ms) {
		h = m(h)
	}
	return h
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// site is a hub behind middleware, on a real server.
type site struct{ *hubtest.Server }

func serve(t *testing.T, o channels.Options, ms ...wrapper) *site {
	t.Helper()
	return &site{hubtest.Serve(t, o, func(h http.Handler) http.Handler { return stack(h, ms...) })}
}

// serveOnly serves a handler in the place of the hub's.
func serveOnly(t *testing.T, h http.Handler) *site {
	t.Helper()
	return serve(t, channels.Options{}, func(http.Handler) http.Handler { return h })
}

// answer is the response to an HTTP request.
type answer struct {
	status int
	header http.Header
	body   string
}

// code returns the code of the error, or "".
func (a answer) code() string {
	var b struct{ Error struct{ Code string } }
	json.Unmarshal([]byte(a.body), &b)
	return b.Error.Code
}

// message returns the message of the error, or "".
func (a answer) message() string {
	var b struct{ Error struct{ Message string } }
	json.Unmarshal([]byte(a.body), &b)
	return b.Error.Message
}

// ask has a handler answer a request, without a server.
func ask(h http.Handler, r *http.Request, header ...string) answer {
	r.Header = hubtest.Pairs(header)
	r.Host = cmp.Or(r.Header.Get("Host"), r.Host)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func try(h http.Handler, method, path, body string, header ...string) answer {
	return ask(h, httptest.NewRequest(method, path, strings.NewReader(body)), header...)
}

// from makes a request from the address remote.
func from(h http.Handler, remote, path string, header ...string) answer {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = remote
	return ask(h, r, header...)
}

func (s *site) do(method, path, body string, header ...string) answer {
	s.T.Helper()
	resp := hubtest.Request(s.T, context.Background(), s.HTTP.Client(), method, s.HTTP.URL+path, body, header...)
	return answer{resp.StatusCode, resp.Header, hubtest.Body(s.T, resp)}
}

func (s *site) publish(channel, body string, header ...string) answer {
	s.T.Helper()
	return s.do("POST", "/v1/channel/"+channel+"/publish", `{"header":"x","body":`+body+`}`, header...)
}

// ws is a WebSocket over a real connection.
type ws struct {
	t *testing.T
	c *websocket.Conn
}

func (s *site) dial(path string, o websocket.DialOptions) (*ws, *http.Response, error) {
	s.T.Helper()
	c, resp, err := hubtest.Dial(s.T, s.HTTP.URL+path, o)
	if err != nil {
		return nil, resp, err
	}
	return &ws{s.T, c}, resp, nil
}

// join opens a WebSocket; header holds alternating names and values.
func (s *site) join(channel string, header ...string) *ws {
	s.T.Helper()
	w, _, err := s.dial("/channel/"+channel+"/", websocket.DialOptions{HTTPHeader: hubtest.Pairs(header)})
	require.NoError(s.T, err)
	return w
}

func (w *ws) send(text string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(w.t, w.c.Write(ctx, websocket.MessageText, []byte(text)))
}

func (w *ws) read() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := w.c.Read(ctx)
	return string(b), err
}

func (w *ws) want(text string) {
	w.t.Helper()
	got, err := w.read()
	require.NoError(w.t, err)
	require.Equal(w.t, text, got)
}

// say publishes a message, and wants to get it and the answer.
func (w *ws) say(message string) {
	w.t.Helper()
	w.send(message)
	w.want(message)
	w.want(`{"header":"exchange","body":{"msg":"ok"}}`)
}

// wantError reads a frame, which must be an error with this code.
func (w *ws) wantError(code string) {
	w.t.Helper()
	got, err := w.read()
	require.NoError(w.t, err)
	require.Contains(w.t, got, `{"header":"error","body":{"code":"`+code+`"`)
}

// events opens an event stream.
func (s *site) events(channel string, header ...string) (next func() string, end func()) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	header = append(header, "Accept", "text/event-stream")
	resp := hubtest.Request(s.T, ctx, s.HTTP.Client(), "GET", s.HTTP.URL+"/channel/"+channel+"/", "", header...)
	require.Equal(s.T, 200, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	next = func() string { // returns the next line with data
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return data
			}
		}
		require.NoError(s.T, lines.Err())
		return ""
	}
	return next, func() { cancel(); resp.Body.Close() }
}

// records collects a JSON log.
type records struct{ basetest.Log }

func newRecords() (*records, *slog.Logger) {
	r := new(records)
	return r, slog.New(slog.NewJSONHandler(r, nil))
}

// wait waits for the n-th record.
func (r *records) wait(t *testing.T, n int) map[string]any {
	t.Helper()
	basetest.Eventually(t, fmt.Sprint("record ", n), func() bool { return len(r.Records()) >= n })
	return r.Records()[n-1]
}

// whoami answers with the identity in its request's context and with some of its
// headers.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	id, ok := channels.IdentityFrom(r.Context())
	g, _ := id.Value.(middleware.Grants)
	json.NewEncoder(w).Encode(map[string]any{"known": ok, "id": id.ID, "info": id.Info, "expires": id.Expires, "grants": g,
		"protocol": r.Header.Values("Sec-Websocket-Protocol"), "remote": r.RemoteAddr})
})
