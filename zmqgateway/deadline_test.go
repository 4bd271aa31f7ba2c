package zmqgateway_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/zmqgateway"
)

// A program that sends a byte now and then must come to an end.
func TestMessageHasADeadline(t *testing.T) {
	var log logbook
	const whole = 300 * time.Millisecond
	_, g := startPaced(t, zmqgateway.Pace{Whole: whole}, withLog(&log))
	pub, pull, rep := g.Addresses()
	refused := int64(0)
	for address, typ := range map[string]zmq4.SocketType{pub: zmq4.Sub, pull: zmq4.Push, rep: zmq4.Req} {
		for what, begin := range map[string][]byte{
			"a frame":           {0, 200},
			"a large frame":     nil,
			"frames":            {1, 0, 1, 200},
			"a frame's header":  {2, 0, 0},
			"a ping":            {4, 50, 4},
			"a message, behind": append(frame(0, "\x01x"), 0, 200),
		} {
			if begin == nil {
				begin = announced(100_000)
			}
			if typ == zmq4.Sub && (what == "frames" || what == "a large frame") {
				continue // not allowed there at all
			}
			s := dialSocket(t, address, typ)
			start := time.Now()
			_, err := s.tcp.Write(begin)
			for err == nil {
				require.Less(t, time.Since(start), zmtp.IdleTimeout, "%s at %s", what, typ)
				if what != "a frame's header" { // a few more bytes would complete it
					_, err = s.tcp.Write([]byte{0})
				}
				require.NoError(t, s.tcp.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
				if _, e := s.tcp.Read(make([]byte, 256)); err == nil && e != nil && !isTimeout(e) {
					err = e
				}
			}
			require.GreaterOrEqual(t, time.Since(start), whole, "%s at %s", what, typ)
			refused++
			eventually(t, "it is counted", func() bool { return g.Stats().Refused == refused })
		}
	}
	eventually(t, "it is logged", func() bool { return log.Has("took too long to come") })
}

// Each message has a deadline of its own. Many messages together have none, and
// silence between them has none.
func TestMessagesTogetherHaveNoDeadline(t *testing.T) {
	t.Parallel()
	const whole = 3 * time.Second // far more than a message needs on a busy machine
	_, g := startPaced(t, zmqgateway.Pace{Whole: whole})
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
