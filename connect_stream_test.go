package channels_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/internal/hubtest"
)

// streamKinds are the ways to open a session over a stream.
var streamKinds = map[string]streamKind{
	"sse":                  {method: "GET", path: "/connection/sse", transport: "sse", content: "text/event-stream; charset=utf-8"},
	"sse, by POST":         {method: "POST", path: "/connection/sse", transport: "sse", content: "text/event-stream; charset=utf-8"},
	"http_stream":          {method: "POST", path: "/connection/http_stream", transport: "http_stream", content: "application/x-ndjson"},
	"http_stream protobuf": {method: "POST", path: "/connection/http_stream", transport: "http_stream", content: "application/octet-stream", format: clientproto.Protobuf},
}

type streamKind struct {
	method, path, transport, content string
	format                           clientproto.Format
}

// Another site can make a visitor's browser send a GET, so that does nothing but begin.
func TestStreamByGetOnlyBegins(t *testing.T) {
	s := serve(t, channels.Options{OnCall: func(context.Context, channels.Call) (json.RawMessage, error) { panic("it is not asked") }})
	const connect = `{"id":1,"connect":{}}` + "\n"
	for _, command := range []string{`"publish":{"channel":"a","data":1}`, `"rpc":{}`, `"send":{}`, `"history":{"channel":"a"}`, `"subscribe":{"channel":"a"},"publish":{"channel":"a","data":1}`} {
		c := s.openSession(streamKinds["sse"], connect+`{"id":2,`+command+`}`)
		require.Equal(t, http.StatusBadRequest, c.resp.StatusCode, command)
		c.close()
	}
	require.Zero(t, s.hub.Stats().Connects)
	c := s.openSession(streamKinds["sse"], connect+`{"id":2,"subscribe":{"channel":"a"}}`)
	require.Equal(t, http.StatusOK, c.resp.StatusCode)
}

// contentType is that of requests.
func (k streamKind) contentType() string {
	if k.format == clientproto.Protobuf {
		return "application/octet-stream"
	}
	return "application/json"
}

// streamClient is a session over a stream, whose commands go to /emulation.
type streamClient struct {
	t      *testing.T
	s      *server
	kind   streamKind
	resp   *http.Response
	r      *bufio.Reader
	cancel context.CancelFunc
	// From the connect reply.
	session, node string
}

// openSession asks for a stream with a first frame; it may be refused.
func (s *server) openSession(k streamKind, frame string, header ...string) *streamClient {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	target, body := s.http.URL+k.path, frame
	if k.method == "GET" {
		target, body = target+"?cf_connect="+url.QueryEscape(frame), ""
		header = append(header, "Accept", "text/event-stream")
	} else {
		header = append(header, "Content-Type", k.contentType())
	}
	resp := hubtest.Request(s.t, ctx, s.http.Client(), k.method, target, body, header...)
	c := &streamClient{t: s.t, s: s, kind: k, resp: resp, r: bufio.NewReader(resp.Body), cancel: cancel}
	s.t.Cleanup(c.close)
	return c
}

// sessionOver opens a session and reads the connect reply.
func (s *server) sessionOver(k streamKind) *streamClient {
	s.t.Helper()
	connect := clientproto.AppendCommand(nil, k.format, &clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{}})
	c := s.openSession(k, string(connect))
	require.Equal(s.t, 200, c.resp.StatusCode)
	require.Equal(s.t, k.content, c.resp.Header.Get("Content-Type"))
	r := c.next()
	require.NotNil(s.t, r.Connect)
	c.session, c.node = r.Connect.Session, r.Connect.Node
	require.Len(s.t, c.session, 26)
	return c
}

func (c *streamClient) close() {
	c.cancel()
	c.resp.Body.Close()
}

// message is the next one of the stream, which is a frame of one reply.
func (c *streamClient) message() ([]byte, error) {
	if c.kind.format == clientproto.Protobuf {
		n, err := binary.ReadUvarint(c.r)
		if err != nil {
			return nil, err
		}
		b := binary.AppendUvarint(nil, n)
		head := len(b)
		b = append(b, make([]byte, n)...)
		_, err = io.ReadFull(c.r, b[head:])
		return b, err
	}
	for {
		line, err := c.r.ReadBytes('\n')
		data, event := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case err != nil:
			return nil, err
		case c.kind.transport != "sse":
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case event:
			return bytes.TrimSuffix(data, []byte("\n")), nil
		}
	}
}

// read is the next reply, or io.EOF. It answers pings.
func (c *streamClient) read() (*clientproto.Reply, error) {
	for {
		b, err := c.message()
		if err != nil {
			return nil, err
		}
		for r, err := range clientproto.Replies(b, c.kind.format) {
			require.NoError(c.t, err, "%q", b)
			if *r != (clientproto.Reply{}) {
				return r, nil
			}
			c.tell(&clientproto.Command{})
		}
	}
}

func (c *streamClient) next() *clientproto.Reply {
	c.t.Helper()
	r, err := c.read()
	require.NoError(c.t, err)
	return r
}

// wantEnd wants the stream to end properly, with a code, after what else may come.
func (c *streamClient) wantEnd(code uint32, reason string) {
	c.t.Helper()
	r := c.next()
	for r.Push == nil || r.Push.Disconnect == nil {
		r = c.next()
	}
	require.Equal(c.t, &clientproto.Disconnect{Code: code, Reason: reason}, r.Push.Disconnect)
	_, err := c.read()
	require.Equal(c.t, io.EOF, err)
}

// emulation is the body of a request that brings a frame.
func emulation(f clientproto.Format, session, node, frame string) string {
	if f == clientproto.JSON {
		b, _ := json.Marshal(map[string]string{"session": session, "node": node, "data": frame})
		return string(b)
	}
	var b []byte
	for i, s := range []string{node, session, frame} {
		b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), s)
	}
	return string(b)
}

// bring sends a frame of commands.
func (c *streamClient) bring(frame string) answer {
	c.t.Helper()
	return c.s.post("/emulation", emulation(c.kind.format, c.session, c.node, frame), "Content-Type", c.kind.contentType())
}

func (c *streamClient) tell(cmd *clientproto.Command) {
	c.t.Helper()
	a := c.bring(string(clientproto.AppendCommand(nil, c.kind.format, cmd)))
	require.Equal(c.t, 204, a.status, a.body)
	require.Empty(c.t, a.body)
}

// ask sends a command and returns what comes next.
func (c *streamClient) ask(cmd *clientproto.Command) *clientproto.Reply {
	c.t.Helper()
	c.tell(cmd)
	return c.next()
}

func TestStreamsConnectSubscribePublish(t *testing.T) {
	for start, serve := range starts {
		for name, k := range streamKinds {
			t.Run(start+"/"+name, func(t *testing.T) {
				var here, gone channels.Client
				s := serve(t, channels.Options{
					ReplicaID:    "r1",
					OnConnect:    func(_ context.Context, c channels.Client) error { here = c; return nil },
					OnDisconnect: func(c channels.Client, _ error) { gone = c },
				})
				c := s.sessionOver(k)
				require.Equal(t, "r1", c.node)
				require.Equal(t, k.transport, here.Transport)
				require.Equal(t, 1, s.hub.Stats().Connections)

				r := c.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: "a"}})
				require.Equal(t, &clientproto.Reply{ID: 2, Subscribe: &clientproto.SubscribeResult{}}, r)
				publish(t, s.hub, "a", "message", `{"n":"ü"}`)
				require.Equal(t, &clientproto.Push{Channel: "a", Pub: &clientproto.Publication{Data: []byte(`{"n":"ü"}`)}}, c.next().Push)
				c.tell(&clientproto.Command{ID: 3, Publish: &clientproto.PublishRequest{Channel: "a", Data: []byte(`[3]`)}})
				require.Equal(t, `[3]`, string(c.next().Push.Pub.Data))
				require.NotNil(t, c.next().Publish)
				require.NotNil(t, c.ask(&clientproto.Command{ID: 4, Unsubscribe: &clientproto.UnsubscribeRequest{Channel: "a"}}).Unsubscribe)
				publish(t, s.hub, "a", "message", `4`)
				require.EqualValues(t, 108, c.ask(&clientproto.Command{ID: 5, Presence: &clientproto.PresenceRequest{Channel: "a"}}).Error.Code)

				c.close() // as when a proxy cuts it
				until(t, "the session leaves", func() bool { return s.hub.Stats().Connections == 0 })
				c.tell(&clientproto.Command{ID: 6, Publish: &clientproto.PublishRequest{Channel: "a", Data: []byte(`6`)}}) // to nobody
				require.NoError(t, s.hub.Shutdown(ctxT(t)))
				require.EqualValues(t, 5, gone.Received.Messages)
			})
		}
	}
}

// Frames are taken one at a time, in the order in which they came.
func TestStreamsTakeFramesInOrder(t *testing.T) {
	s := serve(t, channels.Options{})
	c := s.sessionOver(streamKinds["http_stream"])
	frame := `{"id":2,"subscribe":{"channel":"a"}}`
	for i := range 50 {
		frame += "\n" + `{"id":` + strconv.Itoa(i+3) + `,"publish":{"channel":"a","data":` + strconv.Itoa(i) + `}}`
	}
	require.Equal(t, 204, c.bring(frame).status)
	for i := range 50 {
		require.Equal(t, 204, c.bring(`{"id":`+strconv.Itoa(i+53)+`,"publish":{"channel":"a","data":`+strconv.Itoa(i+50)+`}}`).status)
	}
	require.NotNil(t, c.next().Subscribe)
	for i := range 100 {
		require.Equal(t, strconv.Itoa(i), string(c.next().Push.Pub.Data))
		require.EqualValues(t, i+3, c.next().ID)
	}
}

func TestStreamsEndWithACode(t *testing.T) {
	for name, end := range map[string]struct {
		do     func(t *testing.T, c *streamClient)
		code   uint32
		reason string
	}{
		"drain":            {func(t *testing.T, c *streamClient) { require.NoError(t, c.s.hub.Drain(ctxT(t))) }, 3001, "shutdown"},
		"shutdown":         {func(t *testing.T, c *streamClient) { require.NoError(t, c.s.hub.Shutdown(ctxT(t))) }, 3001, "shutdown"},
		"DisconnectUser":   {func(t *testing.T, c *streamClient) { require.Equal(t, 1, disconnect(c.s.hub, "ann")) }, 3503, "force disconnect"},
		"panic":            {func(t *testing.T, c *streamClient) { c.bring(`{"id":2,"rpc":{"method":"panic"}}`) }, 3004, "internal server error"},
		"a broken frame":   {func(t *testing.T, c *streamClient) { c.bring(`{`) }, 3501, "bad request"},
		"an empty frame":   {func(t *testing.T, c *streamClient) { c.bring(``) }, 3501, "bad request"},
		"a second connect": {func(t *testing.T, c *streamClient) { c.bring(`{"id":2,"connect":{}}`) }, 3501, "bad request"},
	} {
		for _, kind := range []string{"sse", "http_stream"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := serve(t, channels.Options{
					Authenticate: func(context.Context, string, json.RawMessage) (channels.Identity, error) {
						return channels.Identity{ID: "ann"}, nil
					},
					OnCall: func(context.Context, channels.Call) (json.RawMessage, error) { panic("in OnCall") },
				})
				c := s.sessionOver(streamKinds[kind])
				end.do(t, c)
				c.wantEnd(end.code, end.reason)
				until(t, "the session leaves", func() bool { return s.hub.Stats().Connections == 0 })
			})
		}
	}
	s := serve(t, channels.Options{})
	for frame, k := range map[string]streamKind{"\x05\xff": streamKinds["http_stream protobuf"], "": streamKinds["http_stream"], `{"id":1,"subscribe":{}}`: streamKinds["sse"], "\"\xff": streamKinds["sse, by POST"]} {
		c := s.openSession(k, frame)
		require.Equal(t, 200, c.resp.StatusCode)
		c.wantEnd(3501, "bad request")
	}
	require.NotContains(t, s.log.String(), "panic")
}

func TestStreamsAreRefused(t *testing.T) {
	s := serve(t, channels.Options{MaxConnections: 1, MaxMessageBytes: 1 << 10})
	const connect = `{"id":1,"connect":{}}`
	require.Equal(t, "bad_query", s.getStream("/connection/sse").code())
	require.Equal(t, "method_not_allowed", s.get("/connection/http_stream").code())
	a := s.do("PUT", "/connection/sse", "")
	require.Equal(t, "GET, POST, OPTIONS", a.header.Get("Allow"))
	require.Contains(t, a.message(), "GET, POST and OPTIONS are")
	a = s.post("/connection/http_stream", long(1<<20))
	require.Equal(t, 413, a.status)
	require.Equal(t, "too_large", a.code())
	for _, k := range streamKinds {
		for _, from := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "null"}} {
			c := s.openSession(k, connect, from...)
			require.Equal(t, "bad_origin", readAnswer(t, c.resp).code(), "%v", from)
		}
	}
	require.Equal(t, "bad_origin", readAnswer(t, s.openSession(streamKinds["sse"], connect, "Referer", "http://evil.example/").resp).code())

	c := s.sessionOver(streamKinds["sse"])
	for name, k := range streamKinds {
		a := readAnswer(t, s.openSession(k, connect).resp)
		require.Equal(t, http.StatusServiceUnavailable, a.status, "%s: %s", name, a.body)
		require.Equal(t, "too_many_connections", a.code(), "a plain error: the SDKs come again after any")
	}
	c.close()
	until(t, "there is room again", func() bool { return s.hub.Stats().Connections == 0 })
	s.sessionOver(streamKinds["http_stream"]).close()
	require.NoError(t, s.hub.Drain(ctxT(t)))
	for _, k := range streamKinds {
		resp := s.openSession(k, connect).resp
		require.Equal(t, "draining", readAnswer(t, resp).code())
		require.True(t, resp.Close, "a browser would come back to this replica")
	}
}

// A page of another origin that is allowed may use all of it.
func TestStreamsFromAnotherOrigin(t *testing.T) {
	const page = "https://page.example"
	s := serve(t, channels.Options{AllowedOrigins: []string{page}})
	for path, methods := range map[string]string{"/connection/sse": "GET, POST, OPTIONS", "/connection/http_stream": "POST, OPTIONS", "/emulation": "POST, OPTIONS"} {
		a := s.do("OPTIONS", path, "", "Origin", page, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
		require.Equal(t, 204, a.status)
		require.Equal(t, methods, a.header.Get("Access-Control-Allow-Methods"))
		require.Contains(t, a.header.Get("Access-Control-Allow-Headers"), "Content-Type")
		require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	}
	c := s.openSession(streamKinds["sse"], `{"id":1,"connect":{}}`, "Origin", page)
	require.Equal(t, page, c.resp.Header.Get("Access-Control-Allow-Origin"))
	r := c.next().Connect
	a := s.post("/emulation", emulation(clientproto.JSON, r.Session, r.Node, `{"id":2,"subscribe":{"channel":"a"}}`), "Origin", page)
	require.Equal(t, 204, a.status)
	require.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	require.NotNil(t, c.next().Subscribe)
	require.Equal(t, "bad_origin", s.post("/emulation", emulation(clientproto.JSON, r.Session, r.Node, `{}`), "Origin", "https://evil.example").code())
}

// A client that does not read its stream is closed, and holds nobody up.
func TestStreamsCloseASlowReader(t *testing.T) {
	var mu sync.Mutex
	var causes []string
	s := serveSmall(t, channels.Options{
		QueueBytes: floodQueue, MaxMessageBytes: floodQueue / 4,
		OnDisconnect: func(_ channels.Client, cause error) {
			mu.Lock()
			defer mu.Unlock()
			causes = append(causes, reasonCode(cause))
		},
	})
	healthy := s.sessionOver(streamKinds["http_stream"])
	require.NotNil(t, healthy.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: "c"}}).Subscribe)
	stalled := s.dialRaw()
	frame := `{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"c"}}`
	stalled.Send("POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(frame)) + "\r\n\r\n" + frame)
	until(t, "both are subscribed", func() bool {
		info, err := s.hub.Channel(context.Background(), "c")
		return err == nil && info.Subscribers == 2
	})
	pad := `"` + strings.Repeat("x", floodPad) + `"`
	for n := 0; s.hub.Stats().SlowClosed == 0; n++ {
		require.Less(t, n, 100_000, "it is never closed")
		publish(t, s.hub, "c", "message", pad)
		require.Equal(t, pad, string(healthy.next().Push.Pub.Data))
	}
	stalled.Close()
	until(t, "it has left, and the app knows", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(causes) > 0
	})
	require.EqualValues(t, 1, s.hub.Stats().Connections)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"slow_subscriber"}, causes)
}
