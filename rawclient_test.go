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
)

// rawClient speaks the WebSocket protocol by hand, so that a test can do what
// no library would.
type rawClient struct {
	t  *testing.T
	c  net.Conn
	br *bufio.Reader
}

// rawFrame is one frame as it came.
type rawFrame struct {
	first   byte // FIN, reserved bits and opcode
	payload []byte
}

const (
	rawText  = 0x81
	rawClose = 0x88
	rawPing  = 0x89
	rawPong  = 0x8A
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

// masked builds a client's frame.
func masked(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key[:]...)
	for i, p := range payload {
		b = append(b, p^key[i%4])
	}
	return b
}

// tryRead returns the next frame. A server's frames are never masked.
func (r *rawClient) tryRead() (rawFrame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r.br, head[:]); err != nil {
		return rawFrame{}, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var l [2]byte
		if _, err := io.ReadFull(r.br, l[:]); err != nil {
			return rawFrame{}, err
		}
		n = uint64(binary.BigEndian.Uint16(l[:]))
	case 127:
		var l [8]byte
		if _, err := io.ReadFull(r.br, l[:]); err != nil {
			return rawFrame{}, err
		}
		n = binary.BigEndian.Uint64(l[:])
	}
	if head[1] == 126 && n < 126 || head[1] == 127 && n < 1<<16 {
		return rawFrame{}, fmt.Errorf("the length %d in more bytes than it needs: head %x", n, head) // RFC 6455 section 5.2
	}
	if n > 64<<20 {
		return rawFrame{}, fmt.Errorf("a frame of %d bytes: head %x", n, head)
	}
	f := rawFrame{head[0], make([]byte, n)}
	_, err := io.ReadFull(r.br, f.payload)
	return f, err
}

func (r *rawClient) read() rawFrame {
	r.t.Helper()
	f, err := r.tryRead()
	require.NoError(r.t, err)
	return f
}

// next is the next frame that is no ping: a client's turn to be asked for a sign
// of life may come in its first second.
func (r *rawClient) next() (rawFrame, error) {
	for {
		if f, err := r.tryRead(); err != nil || f.first != rawPing {
			return f, err
		}
	}
}

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
	require.Equal(r.t, byte(rawText), f.first)
	require.True(r.t, bytes.Contains(f.payload, []byte(part)), "%s", f.payload)
	return f
}

// wantClose reads to the close frame and returns its code and reason, and
// wants nothing to follow it.
func (r *rawClient) wantClose() (int, string) {
	r.t.Helper()
	for {
		f := r.read()
		if f.first != rawClose {
			continue
		}
		require.GreaterOrEqual(r.t, len(f.payload), 2)
		r.c.Write(masked(rawClose, f.payload[:2])) // the server may have gone
		rest, _ := io.ReadAll(r.br)
		require.Empty(r.t, rest, "after the close frame")
		return int(binary.BigEndian.Uint16(f.payload)), string(f.payload[2:])
	}
}
