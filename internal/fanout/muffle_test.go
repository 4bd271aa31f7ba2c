//go:build linux && !portable

package fanout

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

var lone = make([]byte, lonePong)

// pinged returns a sleeper whose client has got a ping.
func pinged(t *testing.T) (s *sleeper, client *net.TCPConn) {
	t.Helper()
	s, _, client = newSleeper(t, true)
	require.True(t, s.Rest(s))
	s.Send(Ping, Close)
	_, err := io.ReadFull(client, make([]byte, 2))
	require.NoError(t, err)
	basetest.Eventually(t, "it is muffled", s.muffled.Load)
	return s, client
}

// says writes for the client, and waits until n bytes are there to be read.
func (s *sleeper) says(t *testing.T, client *net.TCPConn, b []byte, n int) {
	t.Helper()
	_, err := client.Write(b)
	require.NoError(t, err)
	basetest.Eventually(t, "it has come", func() bool {
		var queued int32
		s.raw.Control(func(fd uintptr) {
			syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&queued)))
		})
		return int(queued) == n
	})
}

// A pong alone waits until it is heard; one with more, or the end, does not.
func TestSocketIsMuffled(t *testing.T) {
	t.Run("heard", func(t *testing.T) {
		s, client := pinged(t)
		s.says(t, client, lone, lonePong)
		require.Zero(t, s.woken.Load())
		s.Hear()
		require.EqualValues(t, 1, s.woken.Load(), "at once")
		require.NoError(t, <-s.read)
		require.EqualValues(t, lonePong, s.bytes.Load())
		s.Hear()
		require.EqualValues(t, 1, s.woken.Load())
		s.Finish(nil, true)
	})
	t.Run("with more", func(t *testing.T) {
		s, client := pinged(t)
		s.says(t, client, lone, lonePong)
		_, err := client.Write(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, <-s.read)
		require.EqualValues(t, lonePong+1, s.bytes.Load(), "and not before")
		s.Finish(nil, true)
	})
	t.Run("the end", func(t *testing.T) {
		s, client := pinged(t)
		client.Close()
		require.ErrorIs(t, <-s.read, io.EOF)
		s.Finish(io.EOF, true)
	})
	t.Run("the reader is woken otherwise", func(t *testing.T) {
		s, client := pinged(t)
		s.watch.Wake()
		_, err := client.Write(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, <-s.read, "it waits for no more than one byte")
		s.Finish(nil, true)
	})
	t.Run("something has come since it was read", func(t *testing.T) { // the system says so, and need not be asked again
		s, client := pinged(t)
		s.says(t, client, lone, lonePong)
		s.Unmuffle()
		require.NoError(t, <-s.read)
		require.EqualValues(t, lonePong, s.bytes.Load())
		s.Finish(nil, true)
	})
	t.Run("while it is read", func(t *testing.T) {
		s, _, client := newSleeper(t, true)
		s.Send(Ping, Close)
		_, err := io.ReadFull(client, make([]byte, 2))
		require.NoError(t, err)
		s.Send(text(nil, Said, "next"), Close)
		_, err = io.ReadFull(client, make([]byte, 2+len("next"))) // so the writer is done with the ping
		require.NoError(t, err)
		require.False(t, s.muffled.Load())
		s.Finish(nil, true)
	})
}

// wakesAt returns how many bytes wake the reader.
func (s *sleeper) wakesAt(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, s.raw.Control(func(fd uintptr) {
		var err error
		n, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT)
		require.NoError(t, err)
	}))
	return n
}

// wakesInBetween is a descriptor that somebody uses the moment after.
type wakesInBetween struct {
	syscall.RawConn
	then func()
}

func (c wakesInBetween) Control(f func(fd uintptr)) error {
	err := c.RawConn.Control(f)
	c.then()
	return err
}

// A socket that is pinged in the moment in which its reader is woken, or cannot rest after
// all, is not muffled in the end: its reader would wait for the last bytes of a frame.
func TestSocketIsMuffledWhileItIsWoken(t *testing.T) {
	t.Run("woken", func(t *testing.T) {
		s, _, client := newSleeper(t, true)
		require.True(t, s.Rest(s))
		raw := s.raw
		s.raw = wakesInBetween{raw, func() { s.raw = raw; s.watch.Wake() }}
		s.muffle()
		require.EqualValues(t, 1, s.woken.Load())
		require.Equal(t, 1, s.wakesAt(t))
		client.Close()
		require.ErrorIs(t, <-s.read, io.EOF)
		s.Finish(io.EOF, true)
	})
	t.Run("not at rest", func(t *testing.T) {
		s, server, _ := newSleeper(t, true)
		require.True(t, s.Rest(s))
		s.watch.Wake()
		require.NoError(t, server.SetReadDeadline(time.Unix(1, 0)))
		require.ErrorIs(t, <-s.read, os.ErrDeadlineExceeded)
		raw := s.raw
		s.raw = wakesInBetween{raw, func() { s.raw = raw; s.muffle() }} // Rest has said that it rests
		s.engine.poller.Close()
		require.False(t, s.Rest(s))
		require.Equal(t, 1, s.wakesAt(t))
		s.Finish(nil, true)
	})
}

// Older kernels would not tell of what came before the socket was unmuffled.
func TestSocketsAreMuffledSince418(t *testing.T) {
	for release, is := range map[string]bool{
		"6.18.44-fc\n": true, "4.18.0-553.el8": true, "10.0": true, "4.20": true,
		"4.17.19": false, "4.14.355-amzn2": false, "3.18": false, "": false, "linux": false, "5": false,
	} {
		require.Equal(t, is, since418(release), release)
	}
}
