package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = basetest.Patience

// What nearly every test uses of hubtest.
var (
	newHub    = hubtest.NewHub
	newMemory = hubtest.NewMemory
	until     = basetest.Eventually
	heap      = basetest.Heap
	msg       = hubtest.Msg
	long      = hubtest.Long
	say       = hubtest.Say
)

type (
	logBuffer = basetest.Log
	message   = hubtest.Message
)

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

// starts are the ways to serve that some tests compare.
var starts = map[string]func(*testing.T, channels.Options) *server{
	"plain": func(t *testing.T, o channels.Options) *server { return serve(t, o) },
	"TLS":   serveTLS,
}

func newServer(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *server {
	t.Helper()
	s := hubtest.New(t, o, middleware...)
	return &server{s, t, s.Hub, s.HTTP, s.Log}
}

// serveSmall is serve with small buffers, so that sockets fill soon if nobody reads.
func serveSmall(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *server {
	t.Helper()
	s := newServer(t, o, middleware...)
	s.SmallBuffers()
	s.http.Start()
	return s
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

// every gives all channels the same options.
func every(o channels.ChannelOptions) func(string) channels.ChannelOptions {
	return func(string) channels.ChannelOptions { return o }
}

// keep gives all channels a history of so many messages.
func keep(size int) func(string) channels.ChannelOptions {
	return every(channels.ChannelOptions{HistorySize: size})
}

// named gives these channels options of their own, and all others none.
func named(options map[string]channels.ChannelOptions) func(string) channels.ChannelOptions {
	return func(name string) channels.ChannelOptions { return options[name] }
}

// get, post and getStream make the requests that most tests make.
func (s *server) get(path string, header ...string) answer {
	s.t.Helper()
	return s.do("GET", path, "", header...)
}

func (s *server) post(path, body string, header ...string) answer {
	s.t.Helper()
	return s.do("POST", path, body, header...)
}

func (s *server) getStream(path string, header ...string) answer {
	s.t.Helper()
	return s.get(path, append([]string{"Accept", "text/event-stream"}, header...)...)
}

// do makes a request; header holds names and values in turn.
func (s *server) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	return readAnswer(s.t, hubtest.Request(s.t, context.Background(), s.http.Client(), method, s.http.URL+path, body, header...))
}

func readAnswer(t *testing.T, resp *http.Response) answer {
	t.Helper()
	a := answer{status: resp.StatusCode, header: resp.Header, body: hubtest.Body(t, resp)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && a.body != "" {
		require.NoError(t, json.Unmarshal([]byte(a.body), &a.json), "body: %s", a.body)
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

// tryDial opens a WebSocket to a channel, or returns why not.
func (s *server) tryDial(path string, o *websocket.DialOptions) (*wsClient, *http.Response, error) {
	s.t.Helper()
	if o == nil {
		o = &websocket.DialOptions{}
	}
	c, resp, err := hubtest.Dial(s.t, s.http.URL+path, *o)
	if err != nil {
		return nil, resp, err
	}
	c.SetReadLimit(64 << 20)
	return &wsClient{s.t, c}, resp, nil
}

// untilLetIn waits until a client is let in to a channel.
func (s *server) untilLetIn(channel string) {
	s.t.Helper()
	until(s.t, "a client is let in", func() bool {
		w, _, err := s.tryDial("/channel/"+channel+"/", nil)
		if err == nil {
			w.c.CloseNow()
		}
		return err == nil
	})
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
	require.NoError(w.t, w.c.Write(ctxT(w.t), websocket.MessageText, []byte(text)))
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

func ctxT(t *testing.T) context.Context { return within(t, patience) }

// background runs f, and gives its error when it returns.
func background(f func() error) <-chan error {
	returned := make(chan error, 1)
	go func() { returned <- f() }()
	return returned
}

// repeatedly calls f with 0, 1, 2 and so on, in a goroutine that stop ends.
func repeatedly(f func(n int)) (stop func()) {
	return repeatedlyIf(func() bool { return true }, f)
}

// repeatedlyTo is repeatedly for what brings a hub's clients something each time. It lets
// them keep up: on a busy machine they would be too slow for their queues.
func repeatedlyTo(h *channels.Hub, f func(n int)) (stop func()) {
	return repeatedlyIf(func() bool { return h.Stats().Queued < 100<<10 }, f)
}

// repeatedlyIf is repeatedly with calls only while may returns true.
func repeatedlyIf(may func() bool, f func(n int)) (stop func()) {
	var stopped atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; !stopped.Load(); {
			if !may() {
				runtime.Gosched()
				continue
			}
			f(n)
			n++
		}
	})
	return func() {
		stopped.Store(true)
		wg.Wait()
	}
}

// untilClosed publishes the same message, with a pause behind each, until the hub is
// shut down. It returns how many were acknowledged.
func untilClosed(t *testing.T, h *channels.Hub, channel string, pause time.Duration) (acked int) {
	for {
		_, err := h.Publish(context.Background(), channel, msg("m", "1"))
		if err != nil {
			assert.ErrorIs(t, err, channels.ErrClosed)
			return acked
		}
		acked++
		time.Sleep(pause) // a rate, not a synchronisation
	}
}

// within is a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// --- The hub's Go methods

// publish publishes from Go, and wants it to succeed.
func publish(t testing.TB, h *channels.Hub, channel, header, body string) channels.Result {
	t.Helper()
	return publishWith(t, h, channel, msg(header, body), channels.PublishOptions{})
}

func publishWith(t testing.TB, h *channels.Hub, channel string, m channels.Message, o channels.PublishOptions) channels.Result {
	t.Helper()
	res, err := h.PublishWith(context.Background(), channel, m, o)
	require.NoError(t, err)
	return res
}

// subscription subscribes from Go. It is closed with the test, if not before.
func subscription(t testing.TB, h *channels.Hub, channel string, from *channels.Position) *channels.Subscription {
	t.Helper()
	sub, err := h.Subscribe(context.Background(), channel, from)
	require.NoError(t, err)
	t.Cleanup(sub.Close)
	return sub
}

// next waits for the next message of a subscription.
func next(t testing.TB, sub *channels.Subscription) channels.Message {
	t.Helper()
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		return m
	}
	require.FailNow(t, "the subscription has ended")
	return channels.Message{}
}

// publishLong publishes n messages of 200 KiB.
func (s *server) publishLong(channel string, n int) {
	s.t.Helper()
	for range n {
		s.PublishGo(channel, `"`+long(200<<10)+`"`)
	}
}

// historyOf reads a channel's history.
func historyOf(t testing.TB, h *channels.Hub, channel string, q channels.HistoryQuery) channels.History {
	t.Helper()
	page, err := h.History(context.Background(), channel, q)
	require.NoError(t, err)
	return page
}

// reads are the errors of the methods that only read.
func reads(ctx context.Context, h *channels.Hub, channel, withHistory, withPresence string) map[string]error {
	errs := map[string]error{}
	_, errs["Channels"] = h.Channels(ctx, channels.ChannelsQuery{})
	_, errs["Channel"] = h.Channel(ctx, channel)
	_, errs["History"] = h.History(ctx, withHistory, channels.HistoryQuery{})
	_, errs["Presence"] = h.Presence(ctx, withPresence, 0)
	return errs
}

// users lists who is present in a channel, on all replicas and by name.
func users(t testing.TB, h *channels.Hub, channel string) (names []string) {
	t.Helper()
	p, err := h.Presence(context.Background(), channel, 0)
	require.NoError(t, err)
	for _, m := range p.Members {
		names = append(names, m.User)
	}
	slices.Sort(names)
	return names
}

// disconnected ends someone's connections with one of the hub's methods, and returns
// how many there were on this replica.
func disconnected(t testing.TB, method func(ctx context.Context, who string) (int, error), who string) int {
	t.Helper()
	n, err := method(context.Background(), who)
	require.NoError(t, err)
	return n
}

// unsubscribed is the same for subscriptions.
func unsubscribed(t testing.TB, method func(ctx context.Context, who, channel string) (int, error), who, channel string) int {
	t.Helper()
	n, err := method(context.Background(), who, channel)
	require.NoError(t, err)
	return n
}

// id is the id of the hub's nth client.
func (s *server) id(n int) string { return channels.IDPrefix(s.hub) + strconv.FormatInt(int64(n), 36) }

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

// reasonCode is the code of the hub's error in err.
func reasonCode(err error) string {
	var e *channels.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return "none"
}
