//go:build (linux || darwin) && !portable

package rawio_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/rawio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func raw(t *testing.T, c net.Conn) syscall.RawConn {
	t.Helper()
	r, err := rawio.Conn(c)
	require.NoError(t, err)
	require.NotNil(t, r)
	return r
}

// write and read are what rawio says of one call.
func write(t *testing.T, r syscall.RawConn, b []byte) (n int, err error) {
	t.Helper()
	require.NoError(t, r.Control(func(fd uintptr) { n, err = rawio.Write(fd, b) }))
	return n, err
}

func read(t *testing.T, r syscall.RawConn, b []byte) (n int, err error) {
	t.Helper()
	require.NoError(t, r.Control(func(fd uintptr) { n, err = rawio.Read(fd, b) }))
	return n, err
}

// Calls with short and with long texts say the same, although they are different ones.
func TestCalls(t *testing.T) {
	for _, size := range []int{1000, 16 << 10, 16<<10 + 1, 64 << 10, 64<<10 + 1} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			a, b := basetest.Pair(t)
			out, in := raw(t, a), raw(t, b)
			text := bytes.Repeat([]byte("x"), size)
			room := make([]byte, size)
			n, err := read(t, in, room)
			require.Equal(t, syscall.EAGAIN, err, "nothing has come")
			require.Zero(t, n)

			sent := 0
			for {
				n, err := write(t, out, text)
				if sent += n; err != nil {
					require.Equal(t, syscall.EAGAIN, err, "the socket's buffer is full")
					require.Zero(t, n)
					break
				}
				require.Positive(t, n)
			}
			require.NoError(t, a.(*net.TCPConn).CloseWrite())
			got := 0
			for {
				err := in.Read(func(fd uintptr) bool {
					n, err = rawio.Read(fd, room)
					return err != syscall.EAGAIN
				})
				require.NoError(t, err)
				if got += n; n == 0 {
					break
				}
			}
			require.NoError(t, err, "the end is none")
			require.Equal(t, sent, got)

			require.NoError(t, b.(*net.TCPConn).SetLinger(0))
			require.NoError(t, b.Close())
			_, err = io.ReadAll(a)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			n, err = write(t, out, text)
			require.Equal(t, syscall.EPIPE, err)
			require.Zero(t, n)
		})
	}
}

// Reading and writing allocate nothing.
func TestCallsAllocateNothing(t *testing.T) {
	a, b := basetest.Pair(t)
	out, in := raw(t, a), raw(t, b)
	text, room := []byte("x"), make([]byte, 10)
	to := func(fd uintptr) { rawio.Write(fd, text) }
	from := func(fd uintptr) { rawio.Read(fd, room) }
	require.Zero(t, testing.AllocsPerRun(100, func() {
		out.Control(to)
		in.Control(from)
	}))
}

// Only what is a socket itself has a descriptor: to write beneath TLS, or beneath what an
// app has wrapped around a connection, would go around it.
func TestConnOfSocketsAlone(t *testing.T) {
	a, _ := basetest.Pair(t)
	for name, c := range map[string]net.Conn{
		"TLS":     tls.Client(a, &tls.Config{InsecureSkipVerify: true}),
		"wrapped": struct{ net.Conn }{a},
	} {
		r, err := rawio.Conn(c)
		require.NoError(t, err, name)
		require.Nil(t, r, name)
	}
	require.NoError(t, a.Close())
	require.ErrorIs(t, raw(t, a).Control(func(uintptr) { t.Error("a closed connection") }), net.ErrClosed)
}
