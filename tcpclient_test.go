package channels_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
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

// message reads the next text, past control frames.
func (c tcpClient) message() (m message) {
	c.t.Helper()
	for {
		f, err := c.tryRead()
		require.NoError(c.t, err)
		require.NotEqual(c.t, byte(rawClose), f.first, "closed: %q", f.payload)
		if f.first == rawText {
			require.NoError(c.t, json.Unmarshal(f.payload, &m), "%s", f.payload)
			return m
		}
	}
}

// wantClosed reads up to the close frame, and then to the end of the connection.
func (c tcpClient) wantClosed(code int) {
	c.t.Helper()
	for {
		f, err := c.tryRead()
		require.NoError(c.t, err, "before a close frame")
		if f.first == rawClose {
			require.GreaterOrEqual(c.t, len(f.payload), 2)
			require.Equal(c.t, code, int(binary.BigEndian.Uint16(f.payload)), "%s", f.payload[2:])
			break
		}
	}
	c.closeWrite() // the server need not wait any more
	rest, err := io.ReadAll(c.br)
	require.False(c.t, isTimeout(err), "the connection is still open")
	require.Empty(c.t, rest, "after a close frame nothing may follow")
}

func (s *server) dialRaw() tcpClient {
	s.t.Helper()
	c, err := net.Dial("tcp", s.http.Listener.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	require.NoError(s.t, c.SetDeadline(time.Now().Add(patience)))
	return tcpClient{&rawClient{s.t, c, bufio.NewReader(c)}}
}

// streamRequest asks for a stream of events, and for the connection's end with it.
func streamRequest(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/event-stream\r\n\r\n"
}

// upgradeRequest is a handshake; header lines replace those of the same name,
// or leave them out where they have no value.
func upgradeRequest(path string, header ...string) string {
	lines := []string{"Host: x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ":")
		for i, l := range lines {
			if strings.HasPrefix(l, name+":") {
				lines[i] = ""
			}
		}
		if value != "" {
			lines = append(lines, h)
		}
	}
	text := "GET " + path + " HTTP/1.1\r\n"
	for _, l := range lines {
		if l != "" {
			text += l + "\r\n"
		}
	}
	return text + "\r\n"
}

// handshake asks for a WebSocket and wants no more than the answer.
func (s *server) handshake(path string, header ...string) answer {
	s.t.Helper()
	return s.dialRaw().ask(upgradeRequest(path, header...))
}

// The parts of a frame's first byte: RFC 6455 section 5.2.
const (
	finBit   = 0x80
	rsv1Bit  = 0x40
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

// wsFrame is a frame as a client sends it.
func wsFrame(first byte, payload string) string { return string(masked(first, []byte(payload))) }

// frameHeader is one of which the length need not be true; mask is 0x80 or 0.
func frameHeader(first, mask byte, n uint64) string {
	switch {
	case n < 126:
		return string([]byte{first, mask | byte(n)})
	case n <= 0xffff:
		return string(binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(n)))
	}
	return string(binary.BigEndian.AppendUint64([]byte{first, mask | 127}, n))
}
