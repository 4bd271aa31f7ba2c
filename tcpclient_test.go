package channels_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/hubtest"
)

// tcpClient is a TCP connection on which a test may send what no proper
// client sends, before a handshake too.
type tcpClient struct{ *rawClient }

func (c tcpClient) write(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.c, text)
	require.NoError(c.t, err)
}

func (c tcpClient) close() { c.c.Close() }

func (c tcpClient) closeWrite() { c.c.(*net.TCPConn).CloseWrite() }

func (c tcpClient) response() (*http.Response, error) { return http.ReadResponse(c.br, nil) }

// ask sends a request and reads its answer.
func (c tcpClient) ask(request string) answer {
	c.t.Helper()
	c.write(request)
	resp, err := c.response()
	require.NoError(c.t, err)
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a
	}
	if resp.Close {
		a.header.Set("Connection", "close") // which ReadResponse takes out
	}
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	a.body = string(b)
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		require.NoError(c.t, json.Unmarshal(b, &a.json), a.body)
	}
	return a
}

func (c tcpClient) upgrade(path string, header ...string) {
	c.t.Helper()
	a := c.ask(upgradeRequest(path, header...))
	require.Equal(c.t, 101, a.status, a.body)
	require.Equal(c.t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", a.header.Get("Sec-WebSocket-Accept")) // the example of RFC 6455
}

func (c tcpClient) message() message { return message{c.conn().Message()} }

func (c tcpClient) wantAllOf(n int) { c.conn().WantAllOf(n) }

func (c tcpClient) wantClosed(code int) { c.conn().WantClosed(code) }

func (s *server) dialRaw() tcpClient { return asTCPClient(s.DialRaw()) }

func asTCPClient(c *hubtest.Conn) tcpClient { return tcpClient{&rawClient{c.T, c.C, c.BR}} }

// hostile opens n WebSockets to a channel.
func (s *server) hostile(n int, channel string, header ...string) []tcpClient {
	s.t.Helper()
	var cs []tcpClient
	for _, c := range s.DialMany(n, channel, header...) {
		cs = append(cs, asTCPClient(c))
	}
	return cs
}

// streamRequest asks for a stream of events on a connection that ends with it.
func streamRequest(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n"
}

func upgradeRequest(path string, header ...string) string {
	return hubtest.UpgradeRequest(path, header...)
}

// handshake asks for a WebSocket and returns the answer.
func (s *server) handshake(path string, header ...string) answer {
	s.t.Helper()
	return s.dialRaw().ask(upgradeRequest(path, header...))
}

const (
	finBit   = hubtest.FinBit
	rsv1Bit  = hubtest.RSV1Bit
	opText   = hubtest.OpText
	opBinary = hubtest.OpBinary
	opPing   = hubtest.OpPing
)

func wsFrame(first byte, payload string) string { return hubtest.WSFrame(first, payload) }

func frameHeader(first, mask byte, n uint64) string { return hubtest.FrameHeader(first, mask, n) }

func say(body string) string { return hubtest.Say(body) }

// text is an unfragmented message.
func text(body string) string { return wsFrame(rawText, say(body)) }
