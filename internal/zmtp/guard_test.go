package zmtp_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// A script is a connection whose peer sends these bytes, and then ends.
type script struct {
	net.Conn
	r io.Reader
}

func (s script) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s script) Write(p []byte) (int, error)      { return len(p), nil }
func (s script) Close() error                     { return nil }
func (s script) SetDeadline(time.Time) error      { return nil }
func (s script) SetReadDeadline(time.Time) error  { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }

// openGuarded shakes hands as a listener with a PULL socket.
func openGuarded(sent []byte, limits zmtp.Limits) (*zmq4.Conn, error) {
	g := zmtp.NewGuard(script{r: bytes.NewReader(sent)}, zmtp.Rules{Mechanism: "NULL", Limits: limits, Buffer: 64 << 10, Ping: func([]byte) {}})
	return g.Shake(null.Security(), zmq4.Pull, "test", true)
}

// What is allowed gets through as it is, without pings.
func TestGuardLets(t *testing.T) {
	message := bytes.Join([][]byte{zmtptest.Frame(1, "channel\x00"), zmtptest.Frame(1, ""), zmtptest.Frame(2, strings.Repeat("x", 300)), zmtptest.Frame(0, "")}, nil)
	var pings []string
	g := zmtp.ShakenGuard(script{r: bytes.NewReader(bytes.Join([][]byte{
		zmtptest.Frame(4, "\x04PING\x00\x00one"), message, zmtptest.Frame(4, "\x04PONG"), zmtptest.Frame(6, "\x04PING\x00\x00"),
		zmtptest.Frame(4, ""), zmtptest.Frame(4, "\xffREADY"), zmtptest.Frame(4, "\x04JOIN"), zmtptest.Frame(4, "\x04PING\x00"), zmtptest.Frame(6, "\x03NEW"+strings.Repeat("x", 1020)), message}, nil))},
		zmtp.Limits{Frame: 300, Message: 400, Frames: 4}, func(b []byte) { pings = append(pings, string(b)) })
	got, err := io.ReadAll(g)
	require.NoError(t, err)
	require.Equal(t, string(message)+string(message), string(got))
	require.Equal(t, []string{"one", ""}, pings)
}

// What is not allowed ends the reading before the frame that breaks the rule.
func TestGuardRefuses(t *testing.T) {
	ping := func([]byte) {}
	for _, c := range []struct {
		want  string
		ping  func([]byte)
		sent  [][]byte
		clean int // frames that get through
	}{
		{"at most 300 are allowed", ping, [][]byte{zmtptest.Frame(0, "x"), zmtptest.Frame(2, strings.Repeat("x", 301))}, 1},
		{"at most 300 are allowed", ping, [][]byte{{2, 0x40, 0, 0, 0, 0, 0, 0, 0}}, 0},
		{"at most 300 are allowed", ping, [][]byte{{2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, 0},
		{"more than 4 frames", ping, [][]byte{zmtptest.Frame(1, ""), zmtptest.Frame(1, ""), zmtptest.Frame(1, ""), zmtptest.Frame(1, "")}, 3},
		{"more than 400 bytes", ping, [][]byte{zmtptest.Frame(1, strings.Repeat("x", 255)), zmtptest.Frame(0, strings.Repeat("x", 146))}, 1},
		{"flags 0x10", ping, [][]byte{zmtptest.Frame(0x10, "")}, 0},
		{"a command has more than one frame", ping, [][]byte{zmtptest.Frame(5, "\x04PING\x00\x00")}, 0},
		{"inside a message", ping, [][]byte{zmtptest.Frame(1, "x"), zmtptest.Frame(4, "\x04PING\x00\x00")}, 1},
		{"more than 64 unknown commands in a minute", ping, slices.Repeat([][]byte{zmtptest.Frame(4, "\x04JOIN")}, 65), 0},
		{"a READY came after the handshake", ping, [][]byte{zmtptest.Frame(4, "\x05READY")}, 0},
		{"a command of 1025 bytes", ping, [][]byte{zmtptest.Frame(6, "\x03NEW"+strings.Repeat("x", 1021))}, 0},
		{"a PING with 65 bytes", ping, [][]byte{zmtptest.Frame(4, "\x04PING\x00\x00"+strings.Repeat("x", 65))}, 0},
		{"not allowed", nil, [][]byte{zmtptest.Frame(4, "\x04PING\x00\x00")}, 0},
		{"unexpected EOF", ping, [][]byte{zmtptest.Frame(1, "x")}, 1},
		{"unexpected EOF", ping, [][]byte{zmtptest.Frame(0, "x"), {0}}, 1},
	} {
		got, err := io.ReadAll(zmtp.ShakenGuard(script{r: bytes.NewReader(bytes.Join(c.sent, nil))}, zmtp.Limits{Frame: 300, Message: 400, Frames: 4}, c.ping))
		require.ErrorContains(t, err, c.want)
		require.Equal(t, string(bytes.Join(c.sent[:c.clean], nil)), string(got), c.want)
	}
}

// A length that is not allowed costs nothing.
func TestGuardBeforeMemory(t *testing.T) {
	b := append(append(zmtptest.Greeting("NULL"), zmtptest.Ready("PUSH")...), 2, 0, 0, 0, 0, 0x40, 0, 0, 0) // 1 GiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := openGuarded(b, zmtp.Limits{Frame: 1 << 20, Message: 1 << 20, Frames: 8})
	require.NoError(t, err)
	_, err = c.RecvMsg()
	require.ErrorContains(t, err, "a frame has 1073741824 bytes; at most 1048576 are allowed")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

// An Admission hears of each frame of a message before the frame is read, and of
// the message's end. Its error ends the reading.
func TestGuardAsksForAdmission(t *testing.T) {
	message := bytes.Join([][]byte{zmtptest.Frame(1, "abc"), zmtptest.Frame(0, "de")}, nil)
	a := &admission{}
	g := zmtp.ShakenGuard(script{r: bytes.NewReader(slices.Concat(message, zmtptest.Frame(0, ""), zmtptest.Frame(0, "no")))},
		zmtp.Limits{Frame: 300, Message: 400, Frames: 4}, nil)
	g.Admission = a
	got, err := io.ReadAll(g)
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.Equal(t, string(message)+string(zmtptest.Frame(0, "")), string(got))
	require.Equal(t, []string{"3 more", "5", "complete", "0", "complete", "2"}, a.heard)
}

// admission refuses the third message.
type admission struct{ heard []string }

func (a *admission) Announced(size int, more bool) (time.Duration, error) {
	s := string(rune('0' + size))
	if more {
		s += " more"
	}
	if a.heard = append(a.heard, s); len(a.heard) == 6 {
		return 0, io.ErrNoProgress
	}
	return 0, nil
}

func (a *admission) Complete() { a.heard = append(a.heard, "complete") }

// FuzzGuard sends anything to a guarded PULL socket, from the greeting on or from
// the end of the handshake on. Nothing may panic, need more memory than the
// limits, or get past them.
func FuzzGuard(f *testing.F) {
	const maxFrame, maxMessage, maxFrames = 1 << 10, 4 << 10, 8
	shaken := append(zmtptest.Greeting("NULL"), zmtptest.Ready("PUSH")...)
	message := append(zmtptest.Frame(1, "channel\x00"), zmtptest.Frame(0, "body")...)
	ping := zmtptest.Frame(4, "\x04PING\x00\x00ctx")
	for _, seed := range [][]byte{
		message, append(ping, message...), zmtptest.Frame(2, "long"), {2, 0x40, 0, 0, 0, 0, 0, 0, 0}, {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		bytes.Repeat(zmtptest.Frame(1, ""), 20), bytes.Repeat(zmtptest.Frame(1, string(make([]byte, 255))), 20), bytes.Repeat(ping, 10), zmtptest.Frame(5, "\x04PING"),
		append(zmtptest.Frame(1, "x"), ping...), zmtptest.Frame(4, "\x05READY"), zmtptest.Frame(8, ""), {0}, {},
	} {
		f.Add(true, seed)
		f.Add(false, append(append([]byte{}, shaken...), seed...))
	}
	f.Add(false, append(zmtptest.Greeting("NULL"), zmtptest.Frame(4, "\x05READY\x0bSocket-Type\xff\xff\xff\xff")...))
	f.Add(false, append(zmtptest.Greeting("NULL"), zmtptest.Frame(4, "\x05READY\xff")...))
	f.Add(false, append(zmtptest.Greeting("NULL"), zmtptest.Frame(4, "\x05READY\x0bSocket-Typ")...)) // on which the library panics
	f.Add(false, append(zmtptest.Greeting("NULL"), zmtptest.Frame(4, "")...))
	f.Add(false, append(zmtptest.Greeting("NULL"), zmtptest.Frame(6, string(make([]byte, 600)))...))
	f.Fuzz(func(t *testing.T, ready bool, b []byte) {
		if ready {
			b = append(append([]byte{}, shaken...), b...)
		}
		c, err := openGuarded(b, zmtp.Limits{Frame: maxFrame, Message: maxMessage, Frames: maxFrames})
		if err != nil {
			if ready {
				t.Fatal("the handshake failed: ", err)
			}
			return
		}
		for {
			msg, err := c.RecvMsg()
			if err != nil {
				return
			}
			sum := 0
			for _, b := range msg.Frames {
				require.LessOrEqual(t, len(b), maxFrame)
				sum += len(b)
			}
			require.LessOrEqual(t, len(msg.Frames), maxFrames)
			require.LessOrEqual(t, sum, maxMessage)
			require.Equal(t, zmq4.UsrMsg, msg.Type, "a command got through")
		}
	})
}
