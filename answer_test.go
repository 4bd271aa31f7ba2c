package channels_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// askSlowly asks for the history of the channel "h", of which the kernel takes little.
func (s *server) askSlowly(query string) rawClient {
	s.t.Helper()
	c := s.dialRaw()
	require.NoError(s.t, c.C.(*net.TCPConn).SetReadBuffer(8<<10))
	require.NoError(s.t, c.C.SetDeadline(time.Now().Add(3*patience)))
	c.Send("GET /v1/channel/h/history" + query + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	return c
}

// A client that reads nothing of a long answer, or almost nothing, is cut. Until
// then, its unread bytes count as queued. A client that is slow but reads steadily
// gets the whole answer.
func TestLongAnswers(t *testing.T) {
	s := newServer(t, channels.Options{WriteTimeout: time.Second, Channel: keep(10)})
	s.SmallBuffers()
	var open atomic.Int64
	s.http.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.http.Start()
	s.publishLong("h", 10)
	t.Run("nobody reads", func(t *testing.T) {
		var cs []rawClient
		for range 5 {
			cs = append(cs, s.askSlowly(""))
		}
		until(t, "they wait", func() bool { return s.hub.Stats().Queued > 0 })
		until(t, "they are cut", func() bool { return open.Load() == 0 })
		require.Zero(t, s.hub.Stats().Queued)
		for _, c := range cs {
			c.Close()
		}
	})
	t.Run("a byte now and then", func(t *testing.T) {
		c := s.askSlowly("")
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for range 200 { // 10 s
			if <-pace.C; open.Load() == 0 && s.hub.Stats().Queued == 0 {
				c.Close()
				return
			}
			if _, err := c.C.Read(make([]byte, 1)); err != nil {
				c.Close()
				return
			}
		}
		t.Error("it is still there")
	})
	t.Run("slow but steady", func(t *testing.T) {
		c := s.askSlowly("?limit=4")
		resp, err := c.response()
		require.NoError(t, err)
		pace := time.NewTicker(250 * time.Millisecond) // 256 KiB a second at the most: three times WriteTimeout
		defer pace.Stop()
		total := 0
		for err == nil {
			<-pace.C
			var n int64
			n, err = io.CopyN(io.Discard, resp.Body, 64<<10)
			total += int(n)
		}
		require.ErrorIs(t, err, io.EOF)
		require.Greater(t, total, 4*(200<<10))
		c.Close()
	})
}

func TestLongAnswersAreRefusedWhereTooMuchWaits(t *testing.T) {
	s := serveSmall(t, channels.Options{MaxQueuedBytes: 1 << 20, WriteTimeout: time.Minute, Channel: keep(10)})
	s.publishLong("h", 10)
	s.PublishGo("short", `1`)
	c := s.askSlowly("")
	until(t, "it waits", func() bool { return s.hub.Stats().Queued > 1<<20 })
	s.get("/v1/channel/h/history").wantFail(t, 503, "overloaded")
	require.Equal(t, 200, s.get("/v1/channel/short/history").status)
	c.Close()
	until(t, "it has gone", func() bool { return s.hub.Stats().Queued == 0 })
	require.Equal(t, 200, s.get("/v1/channel/h/history").status)
}

// One message for many channels counts once for each of them.
func TestABatchCountsForEachChannel(t *testing.T) {
	var published atomic.Int64
	s := serve(t, channels.Options{MaxMessageBytes: 16 << 10, OnPublish: func(context.Context, *channels.Publication) error {
		published.Add(1)
		return nil
	}})
	batch := func(n, size int) string { return toChannels("c", n, `"`+long(size)+`"`) }
	s.post("/v1/publish", batch(1000, 10<<10)).wantFail(t, 413, "too_large")
	require.Zero(t, published.Load())
	require.Equal(t, 200, s.post("/v1/publish", batch(90, 10<<10)).status)
	require.EqualValues(t, 90, published.Load())
	require.Equal(t, 200, s.post("/v1/publish", batch(1000, 500)).status)

	for name, body := range map[string]string{
		"messages": `{"messages":[` + strings.Repeat("{},", 300_000) + `{}]}`,
		"channels": `{"channels":[` + strings.Repeat(`"",`, 300_000) + `""],"header":"h","body":1}`,
		"escaped":  `{"messag\u0065s":[` + strings.Repeat("{},", 300_000) + `{}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			start := hubtest.Allocated()
			s.post("/v1/publish", body).wantFail(t, 413, "too_large")
			require.Less(t, hubtest.Allocated()-start, uint64(8<<20))
		})
	}
}

// Slow readers of long answers may hold half of what may wait, so new connections find
// room. A request is refused before its answer takes memory.
func TestLongAnswersDoNotShutOutConnections(t *testing.T) {
	const size = 4 * 200 << 10
	s := serveSmall(t, channels.Options{MaxQueuedBytes: 4 << 20, WriteTimeout: time.Minute, Channel: keep(10)})
	s.publishLong("h", 4)
	c := s.askSlowly("")
	until(t, "it waits", func() bool { return s.hub.Stats().Queued > size })

	start := hubtest.Allocated()
	for range 8 {
		s.get("/v1/channel/h/history").wantFail(t, 503, "overloaded")
	}
	require.Less(t, hubtest.Allocated()-start, uint64(8*3/2*size), "it was encoded and thrown away") // it is read, as nobody knows before how long it is
	require.Equal(t, 200, s.get("/v1/channel/h/history?limit=1").status, "it is short enough")
	s.join("h", "")
	c.Close()
	until(t, "it has gone", func() bool { return s.hub.Stats().Queued < size })
	require.Equal(t, 200, s.get("/v1/channel/h/history").status)
}

// A client that reads a long answer slowly, or not at all, does not hold up Shutdown.
func TestShutdownDoesNotWaitForLongAnswers(t *testing.T) {
	s := serveSmall(t, channels.Options{WriteTimeout: 5 * time.Minute, Channel: keep(10)})
	s.publishLong("h", 10)
	s.askSlowly("")
	until(t, "it waits", func() bool { return s.hub.Stats().Queued > 1<<20 })
	require.NoError(t, s.hub.Shutdown(ctxT(t)))
	require.NoError(t, s.http.Config.Shutdown(ctxT(t)))
}
