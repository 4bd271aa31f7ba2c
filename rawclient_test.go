package channels_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/hubtest"
)

// rawClient speaks the WebSocket protocol by hand, so that a test can do what
// no library would.
type rawClient struct {
	t  *testing.T
	c  net.Conn
	br *bufio.Reader
}

type rawFrame = hubtest.Frame

const (
	rawText  = hubtest.RawText
	rawClose = hubtest.RawClose
	rawPing  = hubtest.RawPing
	rawPong  = hubtest.RawPong
)

// raw opens a TCP connection and sends the handshake, with what follows it in
// the same write; header holds lines that end with \r\n.
func (s *server) raw(channel, header string, follow ...byte) *rawClient {
	s.t.Helper()
	c, err := net.Dial("tcp", s.http.Listener.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	r := &rawClient{s.t, c, bufio.NewReader(c)}
	r.write(append([]byte(fmt.Sprintf("GET /channel/%s/ HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
		url.PathEscape(channel), strings.TrimPrefix(s.http.URL, "http://"), header)), follow...))
	resp, err := http.ReadResponse(r.br, nil)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusSwitchingProtocols, resp.StatusCode)
	require.Equal(s.t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept")) // RFC 6455 section 1.3
	return r
}

func (r *rawClient) write(b []byte) {
	r.t.Helper()
	_, err := r.c.Write(b)
	require.NoError(r.t, err)
}

func masked(first byte, payload []byte) []byte { return hubtest.Masked(first, payload) }

// conn is the same for hubtest.
func (r *rawClient) conn() *hubtest.Conn { return &hubtest.Conn{T: r.t, C: r.c, BR: r.br} }

func (r *rawClient) tryRead() (rawFrame, error) { return hubtest.ReadFrame(r.br) }

func (r *rawClient) read() rawFrame {
	r.t.Helper()
	f, err := r.tryRead()
	require.NoError(r.t, err)
	return f
}

// next is the next frame that is no ping.
func (r *rawClient) next() (rawFrame, error) { return r.conn().Next() }

func (r *rawClient) readNext() rawFrame {
	r.t.Helper()
	f, err := r.next()
	require.NoError(r.t, err)
	return f
}

// wantText wants the next frame to be a text with this in it.
func (r *rawClient) wantText(part string) rawFrame {
	r.t.Helper()
	f := r.readNext()
	require.Equal(r.t, byte(rawText), f.First)
	require.True(r.t, bytes.Contains(f.Payload, []byte(part)), "%s", f.Payload)
	return f
}

// wantClose reads to the close frame and returns its code and reason, and
// wants nothing to follow it.
func (r *rawClient) wantClose() (int, string) {
	r.t.Helper()
	for {
		f := r.read()
		if f.First != rawClose {
			continue
		}
		require.GreaterOrEqual(r.t, len(f.Payload), 2)
		r.c.Write(masked(rawClose, f.Payload[:2])) // the server may have gone
		rest, _ := io.ReadAll(r.br)
		require.Empty(r.t, rest, "after the close frame")
		return int(binary.BigEndian.Uint16(f.Payload)), string(f.Payload[2:])
	}
}
