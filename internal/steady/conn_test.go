//go:build linux || darwin

package steady_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/steady"
)

// A Conn on a socket reads as the socket does: what has come, what comes, the end, errors,
// deadlines.
func TestConnReadsAsItsSocket(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"the socket": func(c net.Conn) net.Conn { return c },
		"a Conn":     func(c net.Conn) net.Conn { return steady.NewConn(c) },
	} {
		t.Run(name, func(t *testing.T) {
			out, below := basetest.Pair(t)
			in := wrap(below)
			room := make([]byte, 10)
			says := func(err error, op, what string) {
				t.Helper()
				require.EqualError(t, err, op+" tcp "+below.LocalAddr().String()+"->"+below.RemoteAddr().String()+": "+what)
			}

			_, err := out.Write([]byte("abc"))
			require.NoError(t, err)
			n, err := io.ReadAtLeast(in, room, 3)
			require.NoError(t, err)
			require.Equal(t, "abc", string(room[:n]))

			n, err = in.Read(nil)
			require.NoError(t, err)
			require.Zero(t, n)

			require.NoError(t, in.SetReadDeadline(time.Now().Add(time.Millisecond)))
			n, err = in.Read(room)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Zero(t, n)
			n, err = in.Read(room)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a deadline that is over")
			says(err, "read", "i/o timeout")
			require.Zero(t, n)
			require.NoError(t, in.SetReadDeadline(time.Time{}))

			var echo sync.WaitGroup
			echo.Go(func() { _, _ = io.CopyN(out, out, 1000) }) // each read begins before its byte comes, or after
			for i := range 1000 {
				_, err := in.Write([]byte{byte(i)})
				require.NoError(t, err)
				n, err := in.Read(room)
				require.NoError(t, err)
				require.Equal(t, []byte{byte(i)}, room[:n])
			}
			echo.Wait()

			require.NoError(t, out.(*net.TCPConn).CloseWrite())
			n, err = in.Read(room)
			require.Equal(t, io.EOF, err)
			require.Zero(t, n)
			_, err = in.Write([]byte("f"))
			require.NoError(t, err, "the other direction stays open")
			require.NoError(t, in.Close())
			_, err = in.Read(room)
			require.ErrorIs(t, err, net.ErrClosed)
			says(err, "read", "use of closed network connection")
			_, err = in.Write(room)
			says(err, "write", "use of closed network connection")

			out, below = basetest.Pair(t)
			in = wrap(below)
			var closing sync.WaitGroup
			closing.Go(func() { in.Close() })
			_, err = in.Read(room)
			require.ErrorIs(t, err, net.ErrClosed)
			closing.Wait()

			out, below = basetest.Pair(t)
			in = wrap(below)
			require.NoError(t, out.(*net.TCPConn).SetLinger(0))
			require.NoError(t, out.Close())
			_, err = in.Read(room)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			says(err, "read", "read: connection reset by peer")
		})
	}
}

// Writes say what the socket's would say: that the peer is gone, that the connection was
// closed here.
func TestConnWritesTellErrors(t *testing.T) {
	out, below := basetest.Pair(t)
	c := steady.NewConn(below)
	c.SetStall(time.Second)
	require.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
	n, err := c.Write([]byte("abc"))
	require.NoError(t, err, "a deadline does not affect it")
	require.Equal(t, 3, n)
	require.NoError(t, out.(*net.TCPConn).SetLinger(0))
	require.NoError(t, out.Close())
	_, err = io.ReadAll(c)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	n, err = c.Write([]byte("abc"))
	require.EqualError(t, err, "write tcp "+below.LocalAddr().String()+"->"+below.RemoteAddr().String()+": write: broken pipe")
	require.Zero(t, n)
	require.NoError(t, c.Close())
	_, err = c.Write([]byte("abc"))
	require.ErrorIs(t, err, net.ErrClosed)
}

// Writes of several goroutines do not land inside of each other, even if the socket takes
// each in several parts.
func TestConnWritesOneAfterAnother(t *testing.T) {
	const size, count = 16 << 20, 3
	first := make([]byte, 1)
	out, in := basetest.Pair(t)
	c := steady.NewConn(out)
	var writing sync.WaitGroup
	for i := range count {
		if i == 1 { // the first one has begun, and waits for its peer
			_, err := io.ReadFull(in, first)
			require.NoError(t, err)
			c.SetStall(basetest.Patience)
		}
		writing.Go(func() {
			n, err := c.Write(bytes.Repeat([]byte{byte(i)}, size))
			assert.NoError(t, err)
			assert.Equal(t, size, n)
		})
	}
	all := append(make([]byte, 0, count*size), first...)[:count*size]
	_, err := io.ReadFull(in, all[1:])
	require.NoError(t, err)
	for b := all; len(b) > 0; b = b[size:] {
		require.Equal(t, size, bytes.Count(b[:size], b[:1]))
	}
	writing.Wait()
}

// Neither way allocates anything.
func TestConnAllocatesNothing(t *testing.T) {
	out, in := basetest.Pair(t)
	to, from := steady.NewConn(out), steady.NewConn(in)
	to.SetStall(time.Hour)
	text, room := []byte("x"), make([]byte, 1)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		to.Write(text)
		from.Read(room)
	}))
}
