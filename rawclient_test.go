package channels_test

import (
	"net/http"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// rawClient is a TCP connection on which a test may send what no proper client
// sends, before a handshake too.
type rawClient struct{ *hubtest.Conn }

const (
	rawText  = hubtest.RawText
	rawClose = hubtest.RawClose
	rawPing  = hubtest.RawPing
	rawPong  = hubtest.RawPong

	finBit   = hubtest.FinBit
	rsv1Bit  = hubtest.RSV1Bit
	opText   = hubtest.OpText
	opBinary = hubtest.OpBinary
	opPing   = hubtest.OpPing
)

// The functions of hubtest that nearly every test of frames uses.
var (
	wsFrame        = hubtest.WSFrame
	frameHeader    = hubtest.FrameHeader
	upgradeRequest = hubtest.UpgradeRequest
	isTimeout      = basetest.IsTimeout
)

func (s *server) dialRaw() rawClient { return rawClient{s.DialRaw()} }

// upgrade opens a WebSocket.
func (s *server) upgrade(path string, header ...string) rawClient {
	s.t.Helper()
	c := s.dialRaw()
	c.Upgrade(path, header...)
	return c
}

// dialStream asks for a stream of events, and reads nothing of it.
func (s *server) dialStream(channel string) rawClient {
	s.t.Helper()
	c := s.dialRaw()
	c.Send(streamRequest("/channel/" + channel + "/"))
	return c
}

// streamRequest asks for a stream of events on a connection that ends with it.
func streamRequest(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n"
}

// handshake asks for a WebSocket and returns the answer.
func (s *server) handshake(path string, header ...string) answer {
	s.t.Helper()
	return s.dialRaw().ask(upgradeRequest(path, header...))
}

func (c rawClient) response() (*http.Response, error) { return http.ReadResponse(c.BR, nil) }

// ask sends a request and reads its answer.
func (c rawClient) ask(request string) answer {
	c.T.Helper()
	c.Send(request)
	resp, err := c.response()
	require.NoError(c.T, err)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{status: resp.StatusCode, header: resp.Header}
	}
	if resp.Close {
		resp.Header.Set("Connection", "close") // which ReadResponse takes out
	}
	return readAnswer(c.T, resp)
}

func (c rawClient) read() hubtest.Frame {
	c.T.Helper()
	f, err := c.TryRead()
	require.NoError(c.T, err)
	return f
}

// readNext is the next frame that is no ping.
func (c rawClient) readNext() hubtest.Frame {
	c.T.Helper()
	f, err := c.Next()
	require.NoError(c.T, err)
	return f
}

// wantText wants the next frame to be a text with this in it.
func (c rawClient) wantText(part string) hubtest.Frame {
	c.T.Helper()
	f := c.readNext()
	require.Equal(c.T, byte(rawText), f.First)
	require.Contains(c.T, string(f.Payload), part)
	return f
}
