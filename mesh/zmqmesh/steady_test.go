package zmqmesh_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestSlowButSteadyOverTLS: TLS cannot go on after a write that was cut off, so
// none is.
func TestSlowButSteadyOverTLS(t *testing.T) {
	t.Parallel()
	ours := certtest.NewAuthority()
	for _, c := range meshtest.Cases() {
		if c.Name == "SlowButSteadyReceiver" {
			c.Run(t, func(*testing.T) meshtest.Fabric {
				return newFabric(ours.Config("127.0.0.1"))
			})
			return
		}
	}
	require.Fail(t, "the case has another name")
}

// TestEchoOvertakesQueue: an echo, which is the heartbeat, comes soon even if
// much waits before it in the queue of a slow replica.
func TestEchoOvertakesQueue(t *testing.T) {
	t.Parallel()
	// On a busy machine, the test may be disconnected before it begins to read. Then it is tried again.
	eventually(t, "it is answered", func() bool { return echoOvertakes(t) })
}

// echoOvertakes returns false if the test's own replica has not read for too
// long.
func echoOvertakes(t *testing.T) bool {
	const packets, size = 600, 30 << 10
	m := newMesh(t, "m")
	c, conn := join(t, m, "x")
	require.NoError(t, c.SetReadBuffer(64<<10))
	awaitPeers(t, m, 1)
	last := time.Now() // when it has read
	for range packets {
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Body: make([]byte, size)}))
	}
	next := func() (of byte, ok bool) {
		msg, err := conn.RecvMsg()
		if pause := time.Since(last); err != nil {
			require.Greater(t, pause, zmtp.StallTimeout/2, err)
			return 0, false
		}
		last = time.Now()
		return msg.Frames[0][0], true
	}
	queued := func() int {
		if peers := m.Status().Peers; len(peers) == 1 {
			return peers[0].Queued
		}
		return 0 // reading says why
	}
	// Once everything queued before is out, the writer has taken the whole queue.
	got := 0
	for start := queued(); queued() > start-64*size; got++ {
		of, ok := next()
		if !ok {
			return false
		}
		require.Equal(t, byte('P'), of)
	}
	if _, err := c.Write(question(1)); err != nil {
		return false // as reading would say
	}
	for {
		of, ok := next()
		if !ok {
			return false
		}
		if of == 'E' {
			break
		}
		got++
	}
	require.Less(t, got, packets-100, "the answer came behind the queue")
	return true
}

// TestBeatWithoutAnswers: a link that waits for as many echoes as it may goes on
// sending signs of life.
func TestBeatWithoutAnswers(t *testing.T) {
	m := newMesh(t, "m")
	synctest.Test(t, func(t *testing.T) {
		pipe, theirs := net.Pipe()
		defer theirs.Close()
		defer pipe.Close()
		over := make(chan struct{})
		end := sync.OnceFunc(func() { close(over) })
		defer end()
		ours := buffered{pipe, make(chan []byte, 16), over}
		go ours.run() // ends with over
		ended := make(chan error, 1)
		go func() { ended <- zmqmesh.LinkOver(m, ours, over) }() // ends with over
		_, err := zmqmesh.Shake(theirs, "listener", 1, nil, true)
		require.NoError(t, err)
		asked, beats := 0, 0
		for asked < zmqmesh.MaxWaiting || beats < 10 {
			require.NoError(t, theirs.SetReadDeadline(time.Now().Add(zmtp.IdleTimeout)))
			head := make([]byte, 2)
			_, err := io.ReadFull(theirs, head)
			require.NoError(t, err, "after %d questions and %d signs of life", asked, beats)
			body := make([]byte, head[1])
			_, err = io.ReadFull(theirs, body)
			require.NoError(t, err)
			if body[0] == 2 {
				asked++
				require.EqualValues(t, asked, binary.BigEndian.Uint64(body[1:]))
			} else {
				require.Equal(t, "\x00\x00", string(body))
				beats++
			}
		}
		require.Equal(t, zmqmesh.MaxWaiting, asked)
		end()
		require.NoError(t, <-ended)
	})
}

// buffered is a pipe that can be written to before somebody reads, as both sides
// of a handshake do.
type buffered struct {
	net.Conn
	out  chan []byte
	over chan struct{}
}

func (b buffered) run() {
	for {
		select {
		case p := <-b.out:
			_, _ = b.Conn.Write(p)
		case <-b.over:
			return
		}
	}
}

func (b buffered) Write(p []byte) (int, error) {
	select {
	case b.out <- bytes.Clone(p):
		return len(p), nil
	case <-b.over:
		return 0, net.ErrClosed
	}
}
