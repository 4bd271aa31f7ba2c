package fanout

import (
	"bytes"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// newSocket returns a socket, its connection, and the client's side of that.
func newSocket(t *testing.T, e *Engine) (s *Socket, server, client *net.TCPConn) {
	t.Helper()
	l := basetest.Listen(t)
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { accepted.Close(); c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(basetest.Patience)))
	s = new(Socket)
	s.Init(e)
	return s, accepted.(*net.TCPConn), c.(*net.TCPConn)
}

// plain hides what a connection is, as TLS does.
type plain struct{ net.Conn }

// ways are how a socket may be written.
var ways = map[string]func(net.Conn) net.Conn{
	"by a writer":    func(c net.Conn) net.Conn { return c },
	"by a goroutine": func(c net.Conn) net.Conn { return plain{c} },
}

func TestSocketWritesInOrder(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Config{QueueBytes: 8 << 20, WriteTimeout: time.Minute})
			s, server, client := newSocket(t, e)
			var want bytes.Buffer
			want.WriteString("hello\r\n")
			send := func(f *Frame) {
				want.Write(f.Bytes(WebSocket))
				s.Send(f, Close)
			}
			send(text(nil, Said, "before the handshake"))
			require.NoError(t, s.Open(way(server), []byte("hello\r\n")))
			s.Start()
			long := strings.Repeat("x", 10_000)
			for i := range 400 { // more than the sockets hold, so that a writer hands it on
				send(text(nil, Said, strconv.Itoa(i)+long))
			}
			bye := NewClose(1000, "bye")
			want.Write(bye.Bytes(WebSocket))
			s.End([]*Frame{bye}, nil, false)
			got := make([]byte, want.Len())
			_, err := io.ReadFull(client, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want.Bytes(), got))
			require.NoError(t, client.Close())
			s.AwaitClose()
			s.Finish(nil, false)
			require.EqualValues(t, 401, s.Sent.Messages.Load())
			require.EqualValues(t, want.Len()-len("hello\r\n"), s.Sent.Bytes.Load())
		})
	}
}

func TestSocketCutsAClientThatTakesNothing(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Config{QueueBytes: 64 << 20, WriteTimeout: 300 * time.Millisecond})
			s, server, client := newSocket(t, e)
			require.NoError(t, client.SetReadBuffer(8<<10))
			require.NoError(t, s.Open(way(server), nil))
			s.Start()
			for range 16 {
				s.Send(text(nil, Said, strings.Repeat("x", 1<<20)), Close)
			}
			_, err := server.Read(make([]byte, 1))
			require.Error(t, err, "the reader is let go")
			ended, cause := s.Ended()
			require.True(t, ended)
			require.ErrorIs(t, cause, os.ErrDeadlineExceeded)
			s.Finish(err, false)
			require.Zero(t, e.Queued())
		})
	}
}

func TestSocketKilledDuringTheHandshake(t *testing.T) {
	e := newEngine(t, Config{WriteTimeout: time.Minute})
	s, server, client := newSocket(t, e)
	s.Kill(errCut)
	require.NoError(t, s.Open(server, []byte("hello")))
	s.Start()
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	s.Finish(err, true)
	_, err = io.ReadAll(client)
	require.Error(t, err, "it is cut, not closed")
}

func TestSocketAfterTheEngine(t *testing.T) {
	e := newEngine(t, Config{WriteTimeout: time.Minute, Stopped: errCut})
	s, server, _ := newSocket(t, e)
	require.NoError(t, s.Open(plain{server}, nil))
	e.Conns.Shut()
	s.Send(text(nil, Said, "late"), Close)
	s.Start()
	_, cause := s.Ended()
	require.Equal(t, errCut, cause)
}

// Sockets that are opened one after the other, each with a counter of its own,
// get all writers in turn.
func TestSocketsShareTheWriters(t *testing.T) {
	e := newEngine(t, Config{WriteTimeout: time.Minute})
	used := map[*writer]int{}
	for range 4 * len(e.writers) {
		s, server, _ := newSocket(t, e)
		require.NoError(t, s.Open(server, []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")))
		used[s.writer]++
	}
	for _, w := range e.writers {
		require.Equal(t, 4, used[w])
	}
}

// The reader writes what it has queued by itself, in order with what others send.
func TestSocketIsWrittenByItsReader(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Config{QueueBytes: 64 << 20, WriteTimeout: time.Minute})
			s, server, client := newSocket(t, e)
			require.NoError(t, s.Open(way(server), nil))
			s.Start()
			long := strings.Repeat("x", 10_000)
			const frames = 400 // more than the sockets hold
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := range frames {
					s.Send(text(nil, Said, "other "+strconv.Itoa(i)+long), Close)
				}
			}()
			for i := range frames {
				s.Queue(text(nil, Said, "own "+strconv.Itoa(i)+long), Close)
				s.Write()
			}
			<-sent
			s.End([]*Frame{NewClose(1000, "bye")}, nil, false)
			s.Finish(nil, false)
			all, err := io.ReadAll(client)
			var own, other int
			for _, part := range strings.Split(string(all), long) {
				switch {
				case strings.HasSuffix(part, "own "+strconv.Itoa(own)):
					own++
				case strings.HasSuffix(part, "other "+strconv.Itoa(other)):
					other++
				}
			}
			require.NoError(t, err)
			require.Equal(t, []int{frames, frames}, []int{own, other})
		})
	}
}

// Who is waited for has CloseTimeout from the last frame on, and not the hour that it
// could have taken to be written.
func TestAwaitCloseAfterTheLastFrame(t *testing.T) {
	e := newEngine(t, Config{WriteTimeout: time.Hour})
	s, server, _ := newSocket(t, e)
	require.NoError(t, s.Open(server, nil))
	s.Start()
	s.End([]*Frame{NewClose(1002, "bye")}, errCut, false)
	basetest.Eventually(t, "the last frame is noted as written", s.isOver)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		s.AwaitClose()
	}()
	select {
	case <-waited:
	case <-time.After(basetest.Patience):
		t.Error("it waits for longer")
		server.Close()
		<-waited
	}
	s.Finish(nil, false)
}

// A client that closes its own direction without a close frame reads all that was written
// before, whether or not it has arrived by then.
func TestSocketOfAClientThatClosesItsDirection(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for name, c := range map[string]struct {
		messages         int
		written, arrived bool
	}{
		"all has arrived":          {3, true, true},
		"some of it is on its way": {25, true, false},    // more than the client's socket holds
		"not all is written":       {2000, false, false}, // more than both sockets hold
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Config{QueueBytes: 64 << 20, WriteTimeout: time.Minute})
			s, server, client := newSocket(t, e)
			require.NoError(t, server.SetWriteBuffer(1<<20))
			raw, err := server.SyscallConn() // the socket's own is for systems that write at once
			require.NoError(t, err)
			require.NoError(t, s.Open(server, []byte("hello\r\n")))
			s.Start()
			for range c.messages {
				s.Send(text(nil, Said, long), Close)
			}
			basetest.Eventually(t, "the sockets have what they take", func() bool {
				s.mu.Lock()
				written := !s.scheduled
				s.mu.Unlock()
				switch left := unacknowledged(raw); { // -1 if the system does not tell
				case c.arrived:
					return written && left <= 0
				case c.written:
					return written && left != 0
				}
				return !written && e.Written.Load() > 0
			})
			require.NoError(t, client.CloseWrite())
			_, err = server.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
			s.Finish(io.EOF, true)
			got, err := io.ReadAll(client)
			if !c.arrived {
				require.NoError(t, err, "it is no reset")
			}
			if want := len("hello\r\n") + c.messages*len(text(nil, Said, long).Bytes(WebSocket)); c.written {
				require.Len(t, got, want)
			}
		})
	}
}
