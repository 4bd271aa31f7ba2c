package zmtp_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// A listener that fails again and again says so once a second.
func TestAcceptFailuresAreLoggedSparingly(t *testing.T) {
	var log basetest.Log
	ln := &failingListener{left: 100, empty: make(chan struct{}), closed: make(chan struct{})}
	ln.close = sync.OnceFunc(func() { close(ln.closed) })
	began := time.Now()
	l := zmtp.NewListener(ln, zmtp.ListenerOptions{Name: "test", Logger: log.Logger(), Max: 10, Refused: new(atomic.Int64)})
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(func(net.Conn, func()) error { return nil }) })
	<-ln.empty
	require.NoError(t, l.Close())
	serving.Wait()
	require.Positive(t, log.Count("test: no connections can be accepted"))
	require.LessOrEqual(t, log.Count("no connections can be accepted"), 2+int(time.Since(began)/time.Second))
}

// failingListener fails every other time, and then waits.
type failingListener struct {
	net.Listener
	left          int
	empty, closed chan struct{}
	close         func() // closes closed
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.left--; l.left < 0 {
		close(l.empty)
		<-l.closed
		return nil, net.ErrClosed
	}
	if l.left%2 == 0 {
		return nil, errors.New("too many open files")
	}
	c, _ := net.Pipe()
	return c, nil
}

func (l *failingListener) Close() error {
	l.close()
	return nil
}

// Connections beyond the bound are closed and counted; those that were served
// are closed by Close.
func TestListenerBounds(t *testing.T) {
	ln := basetest.Listen(t)
	var log basetest.Log
	var refused atomic.Int64
	l := zmtp.NewListener(ln, zmtp.ListenerOptions{Name: "test", Logger: log.Logger(), Max: 1, Refused: &refused})
	require.NoError(t, l.Err())
	served := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		l.Serve(func(c net.Conn, shaken func()) error {
			shaken()
			served <- struct{}{}
			_, err := c.Read(make([]byte, 1))
			return err
		})
	})
	address := "tcp://" + ln.Addr().String()
	first := zmtptest.Dial(t, address)
	<-served
	zmtptest.RequireHungUp(t, zmtptest.Dial(t, address))
	basetest.Eventually(t, "it is counted", func() bool { return refused.Load() == 1 })
	require.NoError(t, l.Close())
	serving.Wait()
	zmtptest.RequireHungUp(t, first)
	require.EqualValues(t, 1, refused.Load(), "what Close ends was not turned away")
}
