//go:build linux && !portable

package fanout

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// A sleeper is a socket whose reader rests. Its reader reads once, when it is woken, and
// then waits for the end.
type sleeper struct {
	*Socket
	woken atomic.Int32
	bytes atomic.Int32
	read  chan error // what each of its reads has come to
}

func (s *sleeper) Readable() {
	s.Unmuffle()
	s.woken.Add(1)
	go func() {
		n, err := s.Conn().Read(make([]byte, 100))
		s.bytes.Add(int32(n))
		s.read <- err
	}()
}

func newSleeper(t *testing.T, poll bool) (s *sleeper, server, client *net.TCPConn) {
	t.Helper()
	e := newEngine(t, Config{WriteTimeout: time.Minute, Poll: poll})
	socket, server, client := newSocket(t, e)
	require.NoError(t, socket.Open(server, nil))
	socket.Start()
	return &sleeper{Socket: socket, read: make(chan error, 1)}, server, client
}

func TestSocketRests(t *testing.T) {
	s, _, client := newSleeper(t, true)
	require.True(t, s.Rest(s))
	s.Send(text(nil, Said, "to one who rests"), Close)
	_, err := io.ReadFull(client, make([]byte, len("to one who rests")+2))
	require.NoError(t, err)
	require.Zero(t, s.woken.Load())
	_, err = client.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, <-s.read)
	require.EqualValues(t, 1, s.woken.Load())
	s.Finish(nil, true)
}

// What ends a socket wakes its reader, which has to be there for the end.
func TestSocketEndsAtRest(t *testing.T) {
	for name, end := range map[string]func(s *sleeper, client *net.TCPConn){
		"killed": func(s *sleeper, _ *net.TCPConn) { s.Kill(errCut) },
		"closed": func(s *sleeper, client *net.TCPConn) {
			s.End([]*Frame{NewClose(1000, "bye")}, nil, false)
			io.ReadFull(client, make([]byte, 7))
			client.Close()
		},
		"the client has gone": func(_ *sleeper, client *net.TCPConn) { client.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, _, client := newSleeper(t, true)
			require.True(t, s.Rest(s))
			end(s, client)
			err := <-s.read
			require.Error(t, err)
			require.False(t, basetest.IsTimeout(err), err)
			s.Finish(err, true)
			require.EqualValues(t, 1, s.woken.Load())
		})
	}
}

// A client that does not answer the last frame has CloseTimeout for it: the reader that
// is woken gets the deadline.
func TestSocketAtRestIsNotAnswered(t *testing.T) {
	s, _, _ := newSleeper(t, true)
	require.True(t, s.Rest(s))
	s.End([]*Frame{NewClose(1000, "bye")}, nil, false)
	err := <-s.read
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.False(t, s.Rest(s), "it is over")
	s.Finish(err, false)
}

func TestSocketCannotRest(t *testing.T) {
	t.Run("without a poller", func(t *testing.T) {
		s, _, _ := newSleeper(t, false)
		require.False(t, s.Rest(s))
		s.Finish(nil, true)
	})
	t.Run("without a descriptor", func(t *testing.T) {
		socket, server, _ := newSocket(t, newEngine(t, Config{WriteTimeout: time.Minute, Poll: true}))
		require.NoError(t, socket.Open(plain{server}, nil))
		socket.Start()
		require.False(t, socket.Rest(nil))
		socket.Finish(nil, true)
	})
	t.Run("once it was killed", func(t *testing.T) {
		s, _, _ := newSleeper(t, true)
		s.Kill(errCut)
		require.False(t, s.Rest(s))
		s.Finish(nil, true)
	})
	t.Run("once the engine has stopped", func(t *testing.T) {
		e := New(Config{WriteTimeout: time.Minute, Poll: true})
		e.Start()
		resting, server, _ := newSocket(t, e)
		require.NoError(t, resting.Open(server, nil))
		resting.Start()
		s := &sleeper{Socket: resting, read: make(chan error, 1)}
		require.True(t, s.Rest(s))
		go func() {
			for s.woken.Load() == 0 {
				time.Sleep(time.Millisecond) // between two looks
			}
			server.Close()
		}()
		e.Conns.Shut()
		e.Stop()
		require.ErrorIs(t, <-s.read, net.ErrClosed, "it was woken")
		require.False(t, s.Rest(s))
		s.Finish(nil, true)
	})
}

// A reader in Linger leaves when it is told to, and at no other time.
func TestLinger(t *testing.T) {
	s, _, client := newSleeper(t, true)
	b := make([]byte, 100)
	got := 0
	read := func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), b)
		got = max(n, 0)
		return err != syscall.EAGAIN
	}
	s.Hush() // nobody lingers
	_, err := client.Write([]byte("one"))
	require.NoError(t, err)
	hushed, err := s.Linger(read)
	require.NoError(t, err)
	require.False(t, hushed)
	require.Equal(t, 3, got)

	go func() {
		basetest.Eventually(t, "it lingers", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.lingers
		})
		s.Hush()
		s.Hush()
	}()
	hushed, err = s.Linger(read)
	require.NoError(t, err)
	require.True(t, hushed)

	_, err = client.Write([]byte("four"))
	require.NoError(t, err)
	n, err := s.Conn().Read(b)
	require.NoError(t, err, "the deadline is off")
	require.Equal(t, 4, n)
	s.Finish(nil, true)
}

// The last frame's deadline holds, whether the reader is hushed before or after it.
func TestLingerAtTheEnd(t *testing.T) {
	for range 20 {
		s, _, client := newSleeper(t, true)
		read := func(fd uintptr) bool {
			n, err := syscall.Read(int(fd), make([]byte, 100))
			return n == 0 || err != nil && err != syscall.EAGAIN
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.End([]*Frame{NewClose(1000, "bye")}, nil, false) })
		wg.Go(func() {
			for range 100 {
				s.Hush()
			}
		})
		wg.Go(func() {
			for {
				if hushed, _ := s.Linger(read); !hushed || s.isOver() {
					return
				}
			}
		})
		io.ReadFull(client, make([]byte, 7))
		client.Close()
		wg.Wait()
		basetest.Eventually(t, "the last frame is noted as written", s.isOver)
		s.Finish(nil, true)
	}
}

// Once the last frame is out, the client's time for its answer runs. To be hushed does
// not give it another.
func TestHushAtTheEnd(t *testing.T) {
	s, _, client := newSleeper(t, true)
	left := make(chan bool)
	go func() {
		hushed, _ := s.Linger(func(fd uintptr) bool {
			n, err := syscall.Read(int(fd), make([]byte, 100))
			return n == 0 || err != nil && err != syscall.EAGAIN
		})
		left <- hushed
	}()
	basetest.Eventually(t, "it lingers", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lingers
	})
	s.End([]*Frame{NewClose(1000, "bye")}, nil, false)
	basetest.Eventually(t, "the last frame is noted as written", s.isOver)
	s.Hush()
	require.NoError(t, client.Close())
	require.False(t, <-left)
	s.Finish(nil, true)
}
