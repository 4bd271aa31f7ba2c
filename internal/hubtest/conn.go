package hubtest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// Conn is a TCP connection on which a test may send what no proper client sends,
// before a handshake too.
type Conn struct {
	T  *testing.T
	C  net.Conn
	BR *bufio.Reader
}

// DialRaw opens a connection, which ends with the test.
func (s *Server) DialRaw() *Conn {
	s.T.Helper()
	c, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	require.NoError(s.T, err)
	s.T.Cleanup(func() { c.Close() })
	require.NoError(s.T, c.SetDeadline(time.Now().Add(3*basetest.Patience))) // for all that the test does with it
	return &Conn{s.T, c, bufio.NewReader(c)}
}

// DialMany opens n WebSockets to a channel.
func (s *Server) DialMany(n int, channel string, header ...string) []*Conn {
	s.T.Helper()
	cs := make([]*Conn, n)
	for i := range cs {
		cs[i] = s.DialRaw()
		cs[i].Upgrade("/channel/"+channel+"/", header...)
	}
	return cs
}

func (c *Conn) Send(text string) {
	c.T.Helper()
	_, err := io.WriteString(c.C, text)
	require.NoError(c.T, err)
}

func (c *Conn) Close() { c.C.Close() }

func (c *Conn) CloseWrite() { c.C.(*net.TCPConn).CloseWrite() }

// Upgrade makes the connection a WebSocket; see UpgradeRequest for header. It
// returns the answer's header.
func (c *Conn) Upgrade(path string, header ...string) http.Header {
	c.T.Helper()
	c.Send(UpgradeRequest(path, header...))
	return c.Upgraded()
}

// Upgraded reads the answer to a handshake, and returns its header.
func (c *Conn) Upgraded() http.Header {
	c.T.Helper()
	resp, err := http.ReadResponse(c.BR, nil)
	require.NoError(c.T, err)
	require.Equal(c.T, http.StatusSwitchingProtocols, resp.StatusCode)
	require.Equal(c.T, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept")) // the example of RFC 6455
	return resp.Header
}

// UpgradeRequest is a handshake. Lines of header replace those of the same name; a
// line without a value only removes them.
func UpgradeRequest(path string, header ...string) string {
	lines := []string{"Host: x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ":")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		if value != "" {
			lines = append(lines, h)
		}
	}
	return "GET " + path + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// TryRead returns the next frame.
func (c *Conn) TryRead() (Frame, error) { return ReadFrame(c.BR) }

// Next returns the next frame that is no ping: a client may be pinged in its first
// second.
func (c *Conn) Next() (Frame, error) {
	for {
		if f, err := c.TryRead(); err != nil || f.First != RawPing {
			return f, err
		}
	}
}

// Message is what a client receives.
type Message struct {
	Channel string          `json:"channel"`
	Header  string          `json:"header"`
	Body    json.RawMessage `json:"body"`
	Offset  uint64          `json:"offset"`
	Epoch   string          `json:"epoch"`
	Time    int64           `json:"time"`
	ID      json.RawMessage `json:"id"`
}

// ErrorCode is the code in an error's body.
func (m Message) ErrorCode() string {
	var b struct{ Code string }
	json.Unmarshal(m.Body, &b)
	return b.Code
}

// Since is the query that resumes behind the message.
func (m Message) Since() string {
	return "?since=" + channels.Position{Epoch: m.Epoch, Offset: m.Offset}.String()
}

// Message reads the next text, past control frames.
func (c *Conn) Message() (m Message) {
	c.T.Helper()
	for {
		f, err := c.TryRead()
		require.NoError(c.T, err)
		require.NotEqual(c.T, byte(RawClose), f.First, "closed: %q", f.Payload)
		if f.First == RawText {
			require.NoError(c.T, json.Unmarshal(f.Payload, &m), "%s", f.Payload)
			return m
		}
	}
}

// WantAllOf wants n messages "1", past the answers to its own.
func (c *Conn) WantAllOf(n int) {
	c.T.Helper()
	for n > 0 {
		if m := c.Message(); m.Header == "m" {
			require.Equal(c.T, "1", string(m.Body))
			n--
		}
	}
}

// WantClosed reads up to the close frame, and then to the end of the connection. It
// returns the reason.
func (c *Conn) WantClosed(code int) (reason string) {
	c.T.Helper()
	for {
		f, err := c.TryRead()
		require.NoError(c.T, err, "before a close frame")
		if f.First != RawClose {
			continue
		}
		require.GreaterOrEqual(c.T, len(f.Payload), 2)
		reason = string(f.Payload[2:])
		require.Equal(c.T, code, int(binary.BigEndian.Uint16(f.Payload)), reason)
		c.WantEnd()
		return reason
	}
}

// WantEnd wants the server to send nothing more, and to end the connection.
func (c *Conn) WantEnd() {
	c.T.Helper()
	c.CloseWrite() // the server need not wait any more
	rest, err := io.ReadAll(c.BR)
	require.False(c.T, basetest.IsTimeout(err), "the connection is still open")
	require.Empty(c.T, rest, "after a close frame nothing may follow")
}
