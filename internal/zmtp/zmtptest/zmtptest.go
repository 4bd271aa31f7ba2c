// Package zmtptest holds what the tests of everything that speaks ZMTP share:
// bytes of the protocol, and connections.
package zmtptest

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// Greeting is the greeting of a peer with this security mechanism.
func Greeting(mechanism string) []byte {
	b := make([]byte, 64)
	b[0], b[9], b[10] = 0xff, 0x7f, 3
	copy(b[12:], mechanism)
	return b
}

// Frame is a frame with these flags; 2 among them gives it a length of 8 bytes.
func Frame(flags byte, body string) []byte {
	if flags&2 == 0 {
		return append([]byte{flags, byte(len(body))}, body...)
	}
	return append([]byte{flags, 0, 0, 0, 0, 0, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// Ready is the READY of a socket of libzmq.
func Ready(socketType string) []byte {
	return Frame(4, "\x05READY\x0bSocket-Type\x00\x00\x00"+string(rune(len(socketType)))+socketType)
}

// ReadFrame reads a frame with its header.
func ReadFrame(r io.Reader) ([]byte, error) {
	b := make([]byte, 2, 9)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	size := uint64(b[1])
	if b[0]&2 != 0 {
		b = b[:9]
		if _, err := io.ReadFull(r, b[2:]); err != nil {
			return nil, err
		}
		size = binary.BigEndian.Uint64(b[1:])
	}
	n := len(b)
	b = append(b, make([]byte, size)...)
	_, err := io.ReadFull(r, b[n:])
	return b, err
}

// Logger logs to the test's output.
func Logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// Accept takes a connection until the test ends.
func Accept(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	c, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// Dial connects to tcp://HOST:PORT until the test ends. What the test reads next,
// or writes, has the time of Patience; see also Write and RequireHungUp.
func Dial(t testing.TB, address string) net.Conn {
	t.Helper()
	return dial(t, address, new(net.Dialer))
}

// DialFrom connects from an address of this machine's loopback.
func DialFrom(t testing.TB, from, address string) net.Conn {
	t.Helper()
	return dial(t, address, &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}})
}

func dial(t testing.TB, address string, d *net.Dialer) net.Conn {
	t.Helper()
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(address, "tcp://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(basetest.Patience)))
	return c
}

// Write writes all of these, each in the time of Patience.
func Write(t testing.TB, c net.Conn, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(basetest.Patience)))
		_, err := c.Write(f)
		require.NoError(t, err)
	}
}

// RequireHungUp reads until the other side has closed the connection, in the time
// of basetest.Patience from now on.
func RequireHungUp(t testing.TB, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(basetest.Patience)))
	_, err := io.Copy(io.Discard, c)
	require.False(t, basetest.IsTimeout(err), "the connection was not closed")
}

// RequireCloses closes, and waits for the end of that.
func RequireCloses(t testing.TB, c io.Closer) {
	t.Helper()
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }() // ends with Close
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(basetest.Patience):
		require.FailNow(t, "Close goes on waiting")
	}
}
