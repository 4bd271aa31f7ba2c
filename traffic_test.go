package channels_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// OnDisconnect tells what the connection has carried, to the byte.
func TestTrafficOfAConnection(t *testing.T) {
	const in, ack = `{"header":"x","body":1}`, `{"header":"exchange","body":{"msg":"ok"}}`
	publish := func(s *server) {
		w := s.join("a", "")
		w.send(in)
		w.want("x", "1")
		w.want("exchange", `{"msg":"ok"}`)
		w.c.CloseNow()
	}
	published := channels.Client{ // a frame has a header of 2 bytes, and of 6 from a client
		Transport: "websocket",
		Received:  channels.Traffic{Messages: 1, Bytes: 6 + int64(len(in))},
		Sent:      channels.Traffic{Messages: 2, Bytes: 2 + int64(len(in)) + 2 + int64(len(ack))},
	}
	for name, c := range map[string]struct {
		start string
		do    func(s *server)
		want  channels.Client
	}{
		"plain": {"plain", publish, published},
		"TLS":   {"TLS", publish, published},
		"what comes with the handshake": {"plain", func(s *server) {
			c := s.dialRaw()
			c.Send(upgradeRequest("/channel/a/") + wsFrame(rawText, in))
			c.Upgraded()
			c.read()
			c.read()
			c.Close()
		}, published},
		"a stream": {"plain", func(s *server) {
			e := s.stream("a", "")
			s.publish("a", "x", "1")
			e.want("x", "1")
			e.close()
		}, channels.Client{Transport: "sse", Sent: channels.Traffic{Messages: 1, Bytes: int64(len("retry: 1234\ndata: " + in + "\n\n"))}}},
		"nothing": {"plain", func(s *server) { s.join("a", "").c.CloseNow() }, channels.Client{Transport: "websocket"}},
	} {
		t.Run(name, func(t *testing.T) {
			left := make(chan channels.Client, 1)
			s := starts[c.start](t, channels.Options{OnDisconnect: func(c channels.Client, _ error) { left <- c }})
			c.do(s)
			got := <-left
			require.Equal(t, c.want, channels.Client{Transport: got.Transport, Received: got.Received, Sent: got.Sent})
			require.False(t, got.Connected.IsZero())
			require.False(t, got.Connected.After(time.Now()))
		})
	}
}

// A browser hangs up on a server that chooses none of the subprotocols that it
// offers, and a token comes as one of them.
func TestSubprotocol(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, c := range []struct {
		offered []string
		chosen  string
	}{
		{nil, ""},
		{[]string{"channels"}, "channels"},
		{[]string{"channels", "bearer.abc"}, "channels"},
		{[]string{"bearer.abc", "channels"}, "channels"},
		{[]string{"bearer.abc"}, ""},
		{[]string{"chat"}, ""},
	} {
		w, resp, err := s.tryDial("/channel/a/", &websocket.DialOptions{Subprotocols: c.offered})
		require.NoError(t, err)
		require.Equal(t, c.chosen, w.c.Subprotocol())
		if c.chosen == "" {
			require.NotContains(t, resp.Header, "Sec-Websocket-Protocol")
		}
	}
}

func TestWriteError(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		body   string
	}{
		{channels.ErrExpired, 401, `{"status":"fail","error":{"code":"expired","message":"the credentials have expired; connect again with new ones"}}`},
		{fmt.Errorf("wrapped: %w", &channels.Error{Code: "tea", Message: "it is \"tea\"", Status: 418}), 418, `{"status":"fail","error":{"code":"tea","message":"it is \"tea\""}}`},
		{&channels.Error{Code: "no"}, 403, `{"status":"fail","error":{"code":"no","message":""}}`},
		{errors.New("a secret"), 500, `{"status":"fail","error":{"code":"internal","message":"something failed inside the server; its log has the details"}}`},
	} {
		w := httptest.NewRecorder()
		channels.WriteError(w, httptest.NewRequest("GET", "/", nil), c.err)
		require.Equal(t, c.status, w.Code)
		require.Equal(t, c.body+"\n", w.Body.String())
		require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
		require.Empty(t, w.Header().Get("Retry-After"))
	}
	slow := &channels.Error{Code: "slow", Message: "later", Status: 429}
	for _, c := range []struct {
		name, accept, after, want string
		status                    int
		body                      string
	}{
		{"a program", "*/*", "", "[2-5]", 429, `{"status":"fail","error":{"code":"slow","message":"later"}}` + "\n"},
		{"a program, with a time", "*/*", "7", "7", 429, `{"status":"fail","error":{"code":"slow","message":"later"}}` + "\n"},
		{"a stream", "text/event-stream", "", "[2-5]", 200, "retry: [0-9]{4,5}\ndata: {\"header\":\"error\",\"body\":{\"code\":\"slow\",\"msg\":\"later\"}}\n\n"},
		{"a stream, with a time", "text/event-stream", "7", "7", 200, "retry: ([7-9]|1[0-9]|20)[0-9]{3}\ndata: {\"header\":\"error\",\"body\":{\"code\":\"slow\",\"msg\":\"later\"}}\n\n"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", c.accept)
		if c.after != "" {
			w.Header().Set("Retry-After", c.after)
		}
		channels.WriteError(w, r, slow)
		require.Equal(t, c.status, w.Code, c.name)
		require.Regexp(t, "^"+c.want+"$", w.Header().Get("Retry-After"), c.name)
		require.Regexp(t, "^"+c.body+"$", w.Body.String(), c.name)
	}
}

// An app's own CORS middleware around the hub has said it already.
func TestVaryOnce(t *testing.T) {
	s := serve(t, channels.Options{}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Accept-Encoding, Origin")
			next.ServeHTTP(w, r)
		})
	})
	a := s.get("/v1/channel", "Origin", s.http.URL)
	require.Equal(t, 200, a.status)
	require.Equal(t, []string{"Accept-Encoding, Origin"}, a.header.Values("Vary"))
	require.Equal(t, []string{s.http.URL}, a.header.Values("Access-Control-Allow-Origin"))
}
