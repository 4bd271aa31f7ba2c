package channels_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A reader that is slow, and takes something all the time, gets one long
// message, for which it needs several times WriteTimeout.
func TestASlowButSteadyReaderIsNotCut(t *testing.T) {
	const (
		size  = 512 << 10
		step  = 8 << 10
		pause = 40 * time.Millisecond // 2.5 s at the least
	)
	for name, c := range map[string]struct {
		secure  bool
		request string
	}{
		"WebSocket":             {false, upgradeRequest("/channel/c/")},
		"WebSocket, TLS":        {true, upgradeRequest("/channel/c/")},
		"stream of events":      {false, streamRequest("/channel/c/")},
		"stream of events, TLS": {true, streamRequest("/channel/c/")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for end := time.Now().Add(3 * patience); ; {
				longest, cut := readSteadily(t, c.secure, c.request, size, step, pause)
				if cut == nil {
					return
				}
				// On a busy machine, the reader itself may not be steady.
				require.False(t, longest < steadyTimeout/3 || time.Now().After(end), "the longest pause was %v: %v", longest, cut)
			}
		})
	}
}

const steadyTimeout = 1500 * time.Millisecond

// readSteadily reads one message of so many bytes, a step at a time. It returns
// why it was cut, if it was, and the longest time between two reads.
func readSteadily(t *testing.T, secure bool, request string, size, step int, pause time.Duration) (longest time.Duration, cut error) {
	reasons := make(departures, 1)
	s := newServer(t, channels.Options{MaxMessageBytes: 2 * size, WriteTimeout: steadyTimeout, CompressBytes: -1,
		OnDisconnect: reasons.hook})
	s.SmallBuffers()
	if secure {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	conn := s.dialRaw().C
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(16<<10))
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	conn.SetDeadline(time.Now().Add(3 * patience))
	_, err := io.WriteString(conn, request)
	require.NoError(t, err)
	until(t, "it is subscribed", func() bool { return s.hub.Stats().Connections == 1 })
	publish(t, s.hub, "c", "x", `"`+long(size)+`"`)
	b, last := make([]byte, step), time.Now()
	for read, tick := 0, time.NewTicker(pause); read < size; <-tick.C {
		n, err := io.ReadAtLeast(conn, b, 1)
		longest = max(longest, time.Since(last))
		last = time.Now()
		select {
		case reason := <-reasons:
			return longest, fmt.Errorf("cut after %d bytes: %w", read, reason)
		default:
		}
		require.NoError(t, err)
		read += n
	}
	return longest, nil
}

// Who takes nothing is cut, over TLS too.
func TestAReaderThatStopsIsCut(t *testing.T) {
	reasons := make(departures, 1)
	s := newServer(t, channels.Options{MaxMessageBytes: 16 << 20, WriteTimeout: 300 * time.Millisecond, CompressBytes: -1,
		OnDisconnect: reasons.hook})
	s.http.EnableHTTP2 = false
	s.http.StartTLS()
	conn, err := tls.Dial("tcp", s.http.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, upgradeRequest("/channel/c/"))
	require.NoError(t, err)
	resp := make([]byte, len("HTTP/1.1 101"))
	_, err = io.ReadFull(conn, resp)
	require.NoError(t, err)
	_, err = s.hub.Publish(t.Context(), "c", msg("x", `"`+long(16<<20-100)+`"`)) // more than the kernel holds
	require.NoError(t, err)
	require.ErrorContains(t, <-reasons, "timeout")
}

// Who is told to go, and takes a little now and then, keeps its connection for
// a time that does not depend on how much waits for it.
func TestWhoIsToldToGoHasGoneInTime(t *testing.T) {
	for name, request := range map[string]string{"WebSocket": upgradeRequest("/channel/c/"), "stream of events": streamRequest("/channel/c/")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reasons := make(departures, 1)
			s := serveSmall(t, channels.Options{MaxMessageBytes: 1 << 20, WriteTimeout: time.Second, CompressBytes: -1,
				OnDisconnect: reasons.hook})
			c := s.dialRaw()
			require.NoError(t, c.C.(*net.TCPConn).SetReadBuffer(4<<10))
			c.Send(request)
			until(t, "it is subscribed", func() bool { return s.hub.Stats().Connections == 1 })
			publish(t, s.hub, "c", "x", `"`+long(900<<10)+`"`)
			b := make([]byte, 1200)
			ended := false
			for read, tick := 0, time.NewTicker(100*time.Millisecond); ; <-tick.C {
				n, err := io.ReadAtLeast(c.C, b, 1)
				select {
				case <-reasons:
					require.True(t, ended, "cut before it was told to go")
					require.Less(t, read, 500<<10)
					return
				default:
				}
				require.NoError(t, err)
				if read += n; !ended && read > 10_000 {
					ended = true
					require.Equal(t, 1, disconnected(t, s.hub.DisconnectClient, s.id(1)))
				}
			}
		})
	}
}
