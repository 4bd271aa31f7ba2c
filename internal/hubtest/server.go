// Package hubtest serves a hub on a loopback port for tests, and speaks HTTP and
// the WebSocket protocol by hand, so that a test can send what no library would.
package hubtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// Server is a hub behind a real HTTP server on a loopback port.
type Server struct {
	T    *testing.T
	Hub  *channels.Hub
	HTTP *httptest.Server
	Log  *basetest.Log

	Ended bool // the test has shut the hub down itself, with an error
}

// Serve starts a hub, and a server with its handler inside of the middleware. Both
// end with the test.
func Serve(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *Server {
	t.Helper()
	s := New(t, o, middleware...)
	s.HTTP.Start()
	return s
}

// New is Serve for a server that the test starts itself.
func New(t *testing.T, o channels.Options, middleware ...func(http.Handler) http.Handler) *Server {
	t.Helper()
	s := &Server{T: t, Log: &basetest.Log{}}
	if o.Logger == nil {
		o.Logger = s.Log.Logger()
	}
	hub, err := channels.New(o)
	require.NoError(t, err)
	s.Hub = hub
	h := hub.Handler()
	for _, m := range middleware {
		h = m(h)
	}
	s.HTTP = httptest.NewUnstartedServer(h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil && !s.Ended {
			t.Errorf("shutdown: %v", err)
		}
		s.HTTP.Close()
		s.HTTP.Client().CloseIdleConnections()
	})
	return s
}

// For is the server for a subtest, which gets the failures.
func (s *Server) For(t *testing.T) *Server {
	return &Server{T: t, Hub: s.Hub, HTTP: s.HTTP, Log: s.Log}
}

// SmallBuffers makes sockets fill soon if nobody reads. Call it before the server
// is started.
func (s *Server) SmallBuffers() {
	s.HTTP.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		c.(*net.TCPConn).SetWriteBuffer(8 << 10)
		return ctx
	}
}

// PublishGo publishes a message with the header "m" from Go, which leaves no
// connection behind.
func (s *Server) PublishGo(channel, body string) {
	s.T.Helper()
	_, err := s.Hub.Publish(s.T.Context(), channel, Msg("m", body))
	require.NoError(s.T, err)
}

// Msg makes a message of a header and a body in JSON.
func Msg(header, body string) channels.Message {
	return channels.Message{Header: header, Body: json.RawMessage(body)}
}

// Say is the text with which a client publishes a message with the header "m".
func Say(body string) string { return `{"header":"m","body":` + body + `}` }

// Long is a text of n bytes.
func Long(n int) string { return strings.Repeat("x", n) }
