package channels_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A browser does not tell a script why it was refused a WebSocket. So the page gets a
// WebSocket that says why and ends at once, if its origin is allowed.
func TestARefusedWebSocketSaysWhy(t *testing.T) {
	s := serve(t, channels.Options{
		AllowedOrigins: []string{"https://app.example.com"},
		Authorize: func(_ context.Context, r channels.Request) error {
			switch r.Channel {
			case "expired":
				return channels.ErrExpired
			case "secret":
				return channels.ErrForbidden
			case "crash":
				panic("a bug")
			case "busy":
				return &channels.Error{Code: "busy", Message: "later", Status: 503}
			}
			return nil
		},
	})
	own := s.http.URL
	for path, want := range map[string]struct {
		close  websocket.StatusCode
		code   string
		status int
	}{
		"expired/":   {3000, "expired", 401},
		"secret/":    {3003, "forbidden", 403},
		"crash/":     {1011, "internal", 500},
		"busy/":      {1013, "busy", 503},
		"a/?since=x": {3003, "bad_query", 400},
		"a%2Fb/":     {3003, "bad_channel", 400},
	} {
		for _, origin := range []string{own, "https://app.example.com"} {
			w, _, err := s.tryDial("/channel/"+path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}, Subprotocols: []string{"bearer.x", "channels"}})
			require.NoError(t, err)
			require.Equal(t, "channels", w.c.Subprotocol(), "or the browser hangs up")
			before, ce := w.wantClose(want.close)
			require.Len(t, before, 1)
			require.Equal(t, "error", before[0].Header)
			require.Equal(t, want.code, before[0].ErrorCode())
			require.Equal(t, want.code, ce.Reason)
		}
		// Programs read the HTTP error. A page of another site must not learn the
		// reason: it would tell whether the visitor is signed in here.
		s.handshake("/channel/"+path).wantFail(t, want.status, want.code)
		s.handshake("/channel/"+path, "Origin: https://evil.example").wantFail(t, 403, "bad_origin")
	}
	c := s.dialRaw() // not where the WebSocket's bytes are a body
	c.ask(upgradeRequest("/channel/expired/", "Host: "+strings.TrimPrefix(own, "http://"), "Origin: "+own, "Content-Length: 1")+"x").wantFail(t, 400, "bad_handshake")
	s.get("/channel/a/", "Origin", own, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "12").wantFail(t, 400, "bad_handshake")

	// A plain GET is answered in the same way.
	s.get("/channel/expired/").wantFail(t, 401, "expired")
	s.get("/channel/secret/").wantFail(t, 403, "forbidden")
	s.get("/channel/a/").wantFail(t, 426, "upgrade_required")
}

// Refused WebSockets that are told why are bounded in number and in time.
func TestRefusedWebSocketsAreBounded(t *testing.T) {
	s := serve(t, channels.Options{Authorize: func(context.Context, channels.Request) error { return channels.ErrForbidden }})
	var held []rawClient
	open := func() int {
		c := s.dialRaw()
		held = append(held, c)
		return c.ask(upgradeRequest("/channel/a/", "Host: "+strings.TrimPrefix(s.http.URL, "http://"), "Origin: "+s.http.URL)).status
	}
	statuses := map[int]int{}
	for range channels.MaxRefusals + 44 { // they say nothing more
		statuses[open()]++
	}
	require.Equal(t, channels.MaxRefusals+44, statuses[101]+statuses[403], fmt.Sprint(statuses))
	require.LessOrEqual(t, channels.Refusals(), channels.MaxRefusals)
	require.Positive(t, statuses[101])
	until(t, "they are let go", func() bool { return channels.Refusals() == 0 })
	require.Equal(t, 101, open())
	for _, c := range held {
		c.Close()
	}
	until(t, "the last one too", func() bool { return channels.Refusals() == 0 })
}

func TestBadHandshake(t *testing.T) {
	var came, left atomic.Int64
	s := serve(t, channels.Options{
		OnConnect:    func(context.Context, channels.Client) error { came.Add(1); return nil },
		OnDisconnect: func(channels.Client, error) { left.Add(1) },
	})
	for name, header := range map[string][]string{
		"no key":        {"Sec-WebSocket-Key"},
		"a short key":   {"Sec-WebSocket-Key: c2hvcnQ="},
		"no base64":     {"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!!!"},
		"two keys":      {"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: \r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
		"no version":    {"Sec-WebSocket-Version"},
		"version 8":     {"Sec-WebSocket-Version: 8"},
		"no number":     {"Sec-WebSocket-Version: x"},
		"version 13, 8": {"Sec-WebSocket-Version: 13, 8"},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.dialRaw()
			a := c.ask(upgradeRequest("/channel/a/", header...))
			a.wantFail(t, 400, "bad_handshake")
			if strings.Contains(header[0], "Version") {
				require.Equal(t, "13", a.header.Get("Sec-WebSocket-Version"), "RFC 6455 section 4.4")
			}
			require.Empty(t, a.header.Get("Sec-WebSocket-Accept"))
			c.Upgrade("/channel/a/") // the connection can be used again
			c.Close()
		})
	}
	t.Run("HTTP/1.0", func(t *testing.T) {
		a := s.dialRaw().ask(strings.Replace(upgradeRequest("/channel/a/"), "HTTP/1.1", "HTTP/1.0", 1))
		require.GreaterOrEqual(t, a.status, 400)
		require.NotEmpty(t, a.code())
	})
	s.dialRaw().ask(strings.Replace(upgradeRequest("/channel/a/"), "GET", "POST", 1)).wantFail(t, 405, "method_not_allowed")
	for _, header := range [][]string{
		{"Connection: keep-alive, UPGRADE", "Upgrade: h2c, WebSocket"}, // tokens in a list and in any case
		{"Accept: text/event-stream", "Last-Event-ID: nonsense"},       // both at once is a WebSocket
	} {
		s.upgrade("/channel/a", header...).Close()
	}
	s.handshake("/channel/a/?since=x").wantFail(t, 400, "bad_query")
	until(t, "each that OnConnect let in has left", func() bool { return came.Load() == left.Load() })
	require.GreaterOrEqual(t, came.Load(), int64(4))
	require.Zero(t, s.hub.Stats().Connections)
}
