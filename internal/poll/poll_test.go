//go:build linux && !portable

package poll

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPoller returns a running Poller that ends with the test.
func newPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := New()
	require.NoError(t, err)
	runUntilCleanup(t, p)
	return p
}

func runUntilCleanup(t *testing.T, p *Poller) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(p.Run)
	t.Cleanup(func() {
		p.Close()
		running.Wait()
	})
}

// An echo is the server's side of a connection: it rests, and what it reads it sends back.
type echo struct {
	Watch
	conn   *net.TCPConn
	raw    syscall.RawConn
	poller *Poller
	inline bool // it reads in Readable

	wakes atomic.Int32  // how often Readable was called
	reads atomic.Int32  // goroutines that read now
	ended chan struct{} // closed when the client has gone
}

// dial returns a connection's two sides.
func dial(t *testing.T, l net.Listener) (server, client *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close(); c.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func newEcho(t *testing.T, p *Poller, server *net.TCPConn) *echo {
	t.Helper()
	raw, err := server.SyscallConn()
	require.NoError(t, err)
	return &echo{conn: server, raw: raw, poller: p, ended: make(chan struct{})}
}

func (e *echo) Readable() {
	e.wakes.Add(1)
	if e.inline {
		e.read()
	} else {
		go e.read()
	}
}

// read reads until nothing is there, and rests.
func (e *echo) read() {
	if e.reads.Add(1) != 1 {
		panic("two goroutines read a connection")
	}
	for {
		b := make([]byte, 4096)
		n, err := 0, error(nil)
		if failed := e.raw.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), b)
			return true
		}); failed != nil {
			err = failed
		}
		switch {
		case err == syscall.EAGAIN:
			e.reads.Add(-1)
			if e.rest() {
				return
			}
			e.reads.Add(1)
			err = net.ErrClosed
		case err == nil && n > 0:
			e.conn.Write(b[:n])
			continue
		}
		e.reads.Add(-1)
		e.Remove()
		e.conn.Close()
		close(e.ended)
		return
	}
}

func (e *echo) rest() bool { return e.poller.Rest(&e.Watch, e.raw, e) }

func (e *echo) rests() bool { return e.resting.Load() }

// inUse returns how many places are in use.
func (p *Poller) inUse() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.places {
		if at.watch != nil {
			n++
		}
	}
	return n
}

// ask sends a text and waits for its echo.
func ask(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestRest(t *testing.T) {
	p := newPoller(t)
	server, client := dial(t, basetest.Listen(t))
	e := newEcho(t, p, server)
	require.True(t, e.rest())
	require.Zero(t, e.wakes.Load(), "nothing has come")
	ask(t, client, "one")
	ask(t, client, "two")
	basetest.Eventually(t, "it rests", e.rests)
	require.EqualValues(t, 1, p.inUse())
	require.NoError(t, client.Close())
	<-e.ended
	require.Zero(t, p.inUse())
}

// What waits already when a connection comes to rest wakes it, too.
func TestRestWithSomethingToRead(t *testing.T) {
	p := newPoller(t)
	server, client := dial(t, basetest.Listen(t))
	_, err := io.WriteString(client, "early")
	require.NoError(t, err)
	e := newEcho(t, p, server)
	basetest.Eventually(t, "it arrives", func() bool {
		n := 0
		require.NoError(t, e.raw.Read(func(fd uintptr) bool {
			n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 5), syscall.MSG_PEEK)
			return true
		}))
		return n == 5
	})
	require.True(t, e.rest())
	got := make([]byte, 5)
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	require.Equal(t, "early", string(got))
}

// However a client goes, that can be read.
func TestClientsThatGo(t *testing.T) {
	for name, leave := range map[string]func(c *net.TCPConn) error{
		"closed":      (*net.TCPConn).Close,
		"half closed": (*net.TCPConn).CloseWrite,
		"reset": func(c *net.TCPConn) error {
			c.SetLinger(0)
			return c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoller(t)
			server, client := dial(t, basetest.Listen(t))
			e := newEcho(t, p, server)
			require.True(t, e.rest())
			require.NoError(t, leave(client))
			<-e.ended
			require.Zero(t, p.inUse())
		})
	}
}

func TestWake(t *testing.T) {
	p := newPoller(t)
	server, client := dial(t, basetest.Listen(t))
	e := newEcho(t, p, server)
	e.Wake() // it does not rest yet
	require.Zero(t, e.wakes.Load())
	require.True(t, e.rest())
	e.Wake()
	basetest.Eventually(t, "it rests", e.rests)
	require.EqualValues(t, 1, e.wakes.Load())
	ask(t, client, "still there")
	basetest.Eventually(t, "it rests", e.rests)

	// A connection that is closed by this side does not wake by itself.
	require.NoError(t, server.Close())
	e.Wake()
	<-e.ended
	e.Wake()
	e.Remove()
}

func TestRestOfAClosedConnection(t *testing.T) {
	p := newPoller(t)
	server, _ := dial(t, basetest.Listen(t))
	e := newEcho(t, p, server)
	require.NoError(t, server.Close())
	require.False(t, e.rest())
	require.Zero(t, e.wakes.Load())
	e.Remove()
	require.Zero(t, p.inUse())
}

// A descriptor goes to the next connection as soon as it is closed, and so does a place.
// What was said of the one before does not reach the next.
func TestDescriptorsAreUsedAgain(t *testing.T) {
	p := newPoller(t)
	l := basetest.Listen(t)
	type use struct{ fd, place int }
	uses := map[use]int{}
	for range 200 {
		server, client := dial(t, l)
		e := newEcho(t, p, server)
		require.True(t, e.rest())
		fd := 0
		require.NoError(t, e.raw.Control(func(d uintptr) { fd = int(d) }))
		uses[use{fd, int(e.place)}]++
		old := [2]uint32{uint32(e.place), e.used}
		ask(t, client, "hello")
		require.NoError(t, client.Close())
		<-e.ended

		next, other := dial(t, l)
		f := newEcho(t, p, next)
		require.True(t, f.rest())
		require.Equal(t, old[0], uint32(f.place))
		p.event(int32(old[0]), old[1]) // which was on its way
		require.Zero(t, f.wakes.Load())
		require.NoError(t, other.Close())
		<-f.ended
	}
	again := 0
	for _, n := range uses {
		again = max(again, n)
	}
	require.Greater(t, again, 1, "none was used again")
	require.Len(t, p.places, 1)
}

// A connection that is closed and woken, by both sides, while it goes on and off to rest
// is read by one goroutine at a time, and ends once.
func TestEndsWhileItIsWoken(t *testing.T) {
	p := newPoller(t)
	l := basetest.Listen(t)
	for i := range 300 {
		server, client := dial(t, l)
		e := newEcho(t, p, server)
		require.True(t, e.rest())
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 20 {
				e.Wake()
			}
			if i%2 == 0 {
				server.SetLinger(0)
				server.Close()
				e.Wake()
			}
		})
		wg.Go(func() {
			for range 3 {
				io.WriteString(client, "x")
			}
			client.Close()
		})
		wg.Wait()
		<-e.ended
	}
	require.Zero(t, p.inUse())
}

func TestManyRest(t *testing.T) {
	const n = 300 // more than one look at the system shows
	p := newPoller(t)
	l := basetest.Listen(t)
	echoes, clients := make([]*echo, n), make([]*net.TCPConn, n)
	for i := range n {
		server, client := dial(t, l)
		echoes[i], clients[i] = newEcho(t, p, server), client
		require.True(t, echoes[i].rest())
	}
	for range 3 {
		for _, c := range clients {
			_, err := io.WriteString(c, "hello")
			require.NoError(t, err)
		}
		for _, c := range clients {
			_, err := io.ReadFull(c, make([]byte, 5))
			require.NoError(t, err)
		}
	}
	for i, c := range clients {
		require.NoError(t, c.Close())
		<-echoes[i].ended
	}
	require.Zero(t, p.inUse())
}

func TestClose(t *testing.T) {
	p, err := New()
	require.NoError(t, err)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		p.Run()
	}()
	l := basetest.Listen(t)
	server, _ := dial(t, l)
	e := newEcho(t, p, server)
	require.True(t, e.rest())
	p.Close()
	<-ran
	<-e.ended // it was woken, and could not rest again
	late, _ := dial(t, l)
	require.False(t, newEcho(t, p, late).rest())
}

// Who was woken by Wake rests again without another call of the system: the event that was
// asked for is still to come, whenever it does.
func TestRestAfterWake(t *testing.T) {
	for name, inline := range map[string]bool{"in Readable": true, "in a goroutine": false} {
		t.Run(name, func(t *testing.T) {
			p := newPoller(t)
			server, client := dial(t, basetest.Listen(t))
			e := newEcho(t, p, server)
			e.inline = inline
			require.True(t, e.rest())
			for i := range 300 {
				e.Wake()
				if i%3 == 0 { // the event comes while it reads, or rests again, or after that
					ask(t, client, "hello")
					ask(t, client, "again")
				}
				basetest.Eventually(t, "it rests", e.rests)
			}
			require.NoError(t, client.Close())
			<-e.ended
		})
	}
}

// A still counts how often it was to be read, and is read by the test alone.
type still struct {
	Watch
	wakes atomic.Int32
	woken chan struct{}
}

func (s *still) Readable() {
	s.wakes.Add(1)
	s.woken <- struct{}{}
}

// A meddler is a descriptor of a connection in whose use somebody meddles.
type meddler struct {
	syscall.RawConn
	meddle func()
	err    error
}

func (m *meddler) Control(f func(fd uintptr)) error {
	if m.meddle != nil {
		m.meddle()
	}
	if m.err != nil {
		return m.err
	}
	return m.RawConn.Control(f)
}

// counted counts the uses of the epoll's descriptor to ask for an event.
type counted struct {
	syscall.RawConn
	n atomic.Int32
}

func (c *counted) Control(f func(fd uintptr)) error {
	c.n.Add(1)
	return c.RawConn.Control(f)
}

// Whoever rests while another goroutine is still asking for the event relies on that one,
// which reads on if it asks in vain.
func TestRestWhileTheSystemIsAsked(t *testing.T) {
	p, err := New()
	require.NoError(t, err)
	asked := &counted{RawConn: p.conn}
	p.conn = asked
	runUntilCleanup(t, p)
	l := basetest.Listen(t)
	begin := func() (s *still, raw syscall.RawConn, server, client *net.TCPConn) {
		server, client = dial(t, l)
		raw, err := server.SyscallConn()
		require.NoError(t, err)
		s = &still{woken: make(chan struct{}, 1)}
		t.Cleanup(s.Remove)
		return s, raw, server, client
	}
	meddle := func(s *still, raw syscall.RawConn) func() { // another reader comes, and rests again
		return func() {
			s.Wake()
			<-s.woken
			require.True(t, p.Rest(&s.Watch, raw, s))
		}
	}
	t.Run("it is asked once", func(t *testing.T) {
		s, raw, _, client := begin()
		require.True(t, p.Rest(&s.Watch, raw, s))
		for range 10 {
			s.Wake()
			<-s.woken
			require.True(t, p.Rest(&s.Watch, raw, s))
		}
		require.EqualValues(t, 1, asked.n.Load())
		_, err := io.WriteString(client, "x")
		require.NoError(t, err)
		<-s.woken
		require.EqualValues(t, 11, s.wakes.Load())
		require.False(t, s.armed.Load())
	})
	t.Run("it answers", func(t *testing.T) {
		s, raw, _, client := begin()
		require.True(t, p.Rest(&s.Watch, &meddler{RawConn: raw, meddle: meddle(s, raw)}, s))
		_, err := io.WriteString(client, "x")
		require.NoError(t, err)
		<-s.woken
		require.EqualValues(t, 2, s.wakes.Load())
	})
	t.Run("in vain", func(t *testing.T) {
		s, raw, _, _ := begin()
		require.False(t, p.Rest(&s.Watch, &meddler{RawConn: raw, meddle: meddle(s, raw), err: syscall.ENOMEM}, s))
		require.False(t, s.Resting(), "it reads on for both")
		s.Wake()
		require.EqualValues(t, 1, s.wakes.Load())
	})
	t.Run("closed since it was woken", func(t *testing.T) {
		s, raw, server, _ := begin()
		require.True(t, p.Rest(&s.Watch, raw, s))
		s.Wake()
		<-s.woken
		require.NoError(t, server.Close())
		require.False(t, p.Rest(&s.Watch, raw, s))
	})
}
