package fanout

import (
	"io"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// A Cast hands the sockets over to their writers some at a time, and at its end those
// that are left; receivers of other kinds are woken at once.
func TestCastWakesEveryReceiver(t *testing.T) {
	for _, n := range []int{1, 2, laneBatch, 3*laneBatch + 1} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			e := newEngine(t, Config{WriteTimeout: time.Minute})
			g := e.Group()
			var outs []*Outbox
			var clients []io.Reader
			for i := range n {
				s, server, client := newSocket(t, e)
				c := ways["by a writer"](server)
				if i%10 == 9 {
					c = ways["by a goroutine"](server)
				}
				require.NoError(t, s.Open(c, nil))
				s.Start()
				outs, clients = append(outs, &s.Outbox), append(clients, client)
			}
			other := newReceiver(t, e, Values)
			outs = append(outs, &other.Outbox)
			wrote := 0
			for _, word := range []string{"one", "two"} { // the second has what the first has left behind
				f := text(&g, Message, word)
				c := g.Cast(f, len(outs))
				for _, o := range outs {
					c.To(o, Close)
				}
				c.Done()
				for _, client := range clients {
					got := make([]byte, len(f.Bytes(WebSocket)))
					_, err := io.ReadFull(client, got)
					require.NoError(t, err)
					require.Equal(t, f.Bytes(WebSocket), got)
					wrote += len(got)
				}
			}
			basetest.Eventually(t, "the writers have counted", func() bool { return e.Written.Load() == int64(wrote) })
			require.EqualValues(t, 1, other.woken.Load(), "nobody has drained it")
		})
	}
}

// What queueing touches fits into one cache line, and what else a drainer does into
// another one.
func TestOutboxIsNear(t *testing.T) {
	const line = 64
	var o Outbox
	require.LessOrEqual(t, unsafe.Offsetof(o.socket), uintptr(line-8))
	require.LessOrEqual(t, unsafe.Offsetof(o.disowned), uintptr(2*line-1))
}

// To fetch an outbox takes no lock, so it may come at any time.
func TestFetchAtAnyTime(t *testing.T) {
	e := newEngine(t, Config{QueueBytes: 1 << 20, WriteTimeout: time.Minute})
	s, server, client := newSocket(t, e)
	var fetcher sync.WaitGroup
	fetcher.Go(func() {
		for range 1000 {
			s.Fetch()
		}
	})
	require.NoError(t, s.Open(server, nil))
	s.Start()
	for range 1000 {
		s.Send(text(nil, Said, "word"), Close)
	}
	fetcher.Wait()
	_, err := io.ReadFull(client, make([]byte, 1000*len(text(nil, Said, "word").Bytes(WebSocket))))
	require.NoError(t, err)
}
