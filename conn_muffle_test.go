//go:build linux && !portable

package channels_test

import (
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// pinged returns a client that was pinged, whose connection only seven bytes wake. After
// three seconds the hub pings it, too.
func pinged(t *testing.T) (*server, rawClient) {
	s := serve(t, channels.Options{PingPeriod: 10 * time.Minute, Channel: keep(10)})
	r := s.upgrade("/channel/c/")
	until(t, "it is muffled", func() (muffled bool) { // once it rests
		channels.PingAll(s.hub)
		require.Equal(t, byte(rawPing), r.read().First)
		channels.Descriptors(s.hub, func(fd uintptr) {
			n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT)
			require.NoError(t, err)
			muffled = n > 1
		})
		return muffled
	})
	return s, r
}

// What a client says is not held up because it was pinged a moment ago.
func TestAPingedClientIsHeard(t *testing.T) {
	t.Run("bit by bit", func(t *testing.T) {
		s, r := pinged(t)
		text := wsFrame(rawText, `{"header":"said","body":1}`)
		for at, n := 0, 8; at < len(text); n = 1 {
			r.Send(text[at : at+n])
			at += n
			until(t, "each byte is read", func() bool { return channels.Received(s.hub) == int64(at) })
		}
		r.wantText("said")
	})
	t.Run("behind the pong", func(t *testing.T) {
		_, r := pinged(t)
		r.Send(wsFrame(rawPong, ""))
		r.Send(wsFrame(rawPing, ""))
		require.Equal(t, byte(rawPong), r.readNext().First)
	})
	t.Run("that it closes", func(t *testing.T) {
		_, r := pinged(t)
		r.Send(wsFrame(rawPong, "") + wsFrame(rawClose, ""))
		require.Equal(t, byte(rawClose), r.readNext().First)
	})
	t.Run("that it has gone", func(t *testing.T) {
		s, r := pinged(t)
		r.Close()
		until(t, "it is out", func() bool { return s.hub.Stats().Connections == 0 })
	})
}

// What is too short to wake a reader is heard soon after the ping's turn.
func TestShortAnswersAreHeard(t *testing.T) {
	s := serve(t, channels.Options{PingPeriod: 10 * time.Minute})
	pongs, closes := s.upgrade("/channel/c/"), s.upgrade("/channel/c/")
	for _, r := range []rawClient{pongs, closes} { // whose turns come in the first seconds
		require.Equal(t, byte(rawPing), r.read().First)
	}
	pongs.Send(wsFrame(rawPong, ""))
	closes.Send(wsFrame(rawClose, ""))
	require.Equal(t, byte(rawClose), closes.read().First)
	closes.Close()
	until(t, "the other one leaves", func() bool { return s.hub.Stats().Connections == 1 })
	until(t, "the pong is read", func() bool { return channels.Received(s.hub) > 0 })
}

// A pong that came after that counts in the next turn, before its client would be cut.
func TestALatePongIsHeard(t *testing.T) {
	s, r := pinged(t)
	r.Send(wsFrame(rawPong, ""))
	until(t, "it has come", func() bool {
		queued := 0
		channels.Descriptors(s.hub, func(fd uintptr) {
			_, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&queued)))
			require.Zero(t, e)
		})
		return queued > 0 || channels.Received(s.hub) > 0 // its turn may have come
	})
	require.True(t, channels.Live(s.hub))
}
