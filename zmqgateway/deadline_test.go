package zmqgateway_test

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/zmqgateway"
)

// A program that sends a byte now and then must come to an end.
func TestMessageHasADeadline(t *testing.T) {
	var log logbook
	const whole = 300 * time.Millisecond
	_, g := start(t, func(o *setup) { o.Whole = whole }, withLog(&log))
	for what, c := range map[string]struct {
		begin []byte
		then  string // what follows again and again: it never completes the message
		of    []string
	}{
		"a frame":           {[]byte{0, 200}, "x", []string{"SUB", "PUSH", "REQ"}},
		"a large frame":     {announced(100_000), "x", []string{"PUSH", "REQ"}}, // not allowed for SUB
		"frames":            {[]byte{1, 0, 1, 200}, "x", []string{"PUSH", "REQ"}},
		"a frame's header":  {[]byte{2, 0, 0}, "", []string{"SUB", "PUSH", "REQ"}}, // a few more bytes would complete it
		"a ping":            {[]byte{4, 50, 4}, "x", []string{"SUB", "PUSH", "REQ"}},
		"a message, behind": {append(frame(0, "\x00x"), 0, 200), "x", []string{"SUB", "PUSH", "REQ"}},
	} {
		for _, socket := range c.of {
			t.Run(what+" of "+socket, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					peer, served := handle(g, socket)
					go io.Copy(io.Discard, peer) // ends with the connection
					write(t, peer, shaken(socket, c.begin))
					start := time.Now()
					var trickling sync.WaitGroup
					defer trickling.Wait()
					trickling.Go(func() { // ends with the connection
						var err error
						for err == nil && c.then != "" {
							time.Sleep(10 * time.Millisecond)
							_, err = peer.Write([]byte(c.then))
						}
					})
					require.ErrorIs(t, <-served, zmtp.ErrTooSlow)
					require.Equal(t, whole, time.Since(start))
				})
			})
		}
	}

	for s, begin := range map[*socket][]byte{
		dialPush(t, g): announced(100_000),
		dialSub(t, g):  append(frame(0, "\x01x"), 0, 200), // subscribes first, so it is no stranger
	} {
		refused := g.Stats().Refused
		_, err := s.tcp.Write(begin)
		for sent := 0; err == nil; sent++ {
			require.Less(t, sent, 200, "or the message would be complete")
			time.Sleep(20 * time.Millisecond) // the point of the test: it is slow, and not idle
			_, err = s.tcp.Write([]byte("x"))
		}
		eventually(t, "it is counted", func() bool { return g.Stats().Refused == refused+1 })
	}
	eventually(t, "it is logged", func() bool { return log.Has("took too long to come") })
}

// Each message has a deadline of its own. Many messages together have none, and
// silence between them has none.
func TestMessagesTogetherHaveNoDeadline(t *testing.T) {
	t.Parallel()
	const whole = 3 * time.Second // far more than a message needs on a busy machine
	_, g := start(t, func(o *setup) { o.Whole = whole })
	s := dialPush(t, g)
	s.send(t, "a", "first", "1")
	n := int64(1)
	for start := time.Now(); time.Since(start) < whole+whole/4; n++ {
		write(t, s.tcp, frame(1, "a"), []byte{1, 200})
		require.NoError(t, s.tcp.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
		_, err := s.tcp.Read(make([]byte, 1))
		require.True(t, isTimeout(err), "%v", err)
		write(t, s.tcp, bytes.Repeat([]byte("h"), 200), frame(0, "1"))
	}
	eventually(t, "all are published", func() bool { return g.Stats().Published == n })
}

// A large message has the time that it needs.
func TestDeadlineGrowsWithSize(t *testing.T) {
	for _, c := range []struct {
		size       int
		start, end time.Duration
	}{{0, 30 * time.Second, 31 * time.Second}, {1 << 20, 46 * time.Second, 47 * time.Second}, {64 << 20, 1054 * time.Second, 1055 * time.Second}} {
		d := zmqgateway.MessageTime(c.size)
		require.GreaterOrEqual(t, d, c.start)
		require.Less(t, d, c.end)
	}
}
