package zmqmesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/internal/steady"
)

const (
	maxShaking   = 512                    // connections of one listener that have not shaken hands yet
	shakingGrace = 400 * time.Millisecond // in which they rather do not make way
	maxPeerConns = 1_024                  // connections of replicas to one listener
)

// listener accepts connections, each in a goroutine of its own, and bounds
// them: those that are still shaking hands make room for later ones, so that
// silent connections keep nobody out.
type listener struct {
	net.Listener
	who     string // "mesh" or "gateway", for the log
	log     *slog.Logger
	tls     *tls.Config           // or nil
	max     int                   // connections, besides those that are shaking hands
	refused *atomic.Int64         // counts who was turned away
	warned  sparingly.Turn        // of that
	failing atomic.Pointer[error] // why nothing can be accepted at the moment
	failed  sparingly.Turn        // logs that, as whoever connects until nothing is left can cause it again and again

	mu      sync.Mutex // guards the fields below
	shaking crowd[net.Conn]
	conns   map[net.Conn]bool
	closed  bool

	served sync.WaitGroup // serve's goroutines
}

func newListener(ln net.Listener, who string, config *tls.Config, log *slog.Logger, max int, refused *atomic.Int64) *listener {
	return &listener{Listener: ln, who: who, log: log, tls: config, max: max, refused: refused, conns: make(map[net.Conn]bool)}
}

// serve calls handle for each connection until the listener is stopped. handle
// calls shaken at the end of the handshake; when it returns, the connection is
// closed.
func (l *listener) serve(handle func(c net.Conn, shaken func()) error) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if l.isClosed() {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil { // the process has too many files open, say
			if l.failing.Swap(&err) == nil && l.failed.Now(time.Second) {
				l.log.Error(l.who+": no connections can be accepted", "err", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
			continue
		}
		pause = 0
		l.failing.Store(nil)
		l.start(c, handle)
	}
}

// err is why nothing can be accepted at the moment, or nil.
func (l *listener) err() error {
	if err := l.failing.Load(); err != nil {
		return fmt.Errorf("zmqmesh: listening: %w", *err)
	}
	return nil
}

// start handles a connection in a goroutine, which ends with the connection.
func (l *listener) start(c net.Conn, handle func(c net.Conn, shaken func()) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns)-len(l.shaking.all) >= l.max {
		l.refused.Add(1)
		c.Close()
		return
	}
	if l.shaking.add(c, c.RemoteAddr()); len(l.shaking.all) > maxShaking {
		l.shaking.takeAny(shakingGrace).Close() // its goroutine counts it
	}
	l.conns[c] = true
	l.served.Go(func() {
		defer l.remove(c)
		secured, err := l.secure(c)
		if err == nil {
			err = handle(secured, func() { l.endShaking(c) })
		}
		if err != nil {
			l.refuse(c, err)
		}
	})
}

// secure does the handshake of TLS, where that is set.
func (l *listener) secure(c net.Conn) (net.Conn, error) {
	if l.tls == nil {
		return c, nil
	}
	t := tls.Server(steady.NewConn(c), l.tls)
	ctx, cancel := context.WithTimeout(context.Background(), shakeTimeout)
	defer cancel()
	return t, t.HandshakeContext(ctx)
}

// refuse counts a connection that was turned away. As anybody can cause it,
// it is logged once a second at most.
func (l *listener) refuse(c net.Conn, why error) {
	if l.isClosed() {
		return
	}
	if n := l.refused.Add(1); l.warned.Now(time.Second) {
		l.log.Warn(l.who+": refused a connection", "from", c.RemoteAddr().String(), "refused", n, "err", why)
	}
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *listener) endShaking(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaking.remove(c)
}

func (l *listener) remove(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaking.remove(c)
	delete(l.conns, c)
}

// stop accepts no more, and closes the connections that are shaking hands.
func (l *listener) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.Listener.Close()
	for _, c := range l.shaking.all {
		c.conn.Close()
	}
}

// close closes all connections, and waits for their goroutines.
func (l *listener) close() {
	l.stop()
	l.mu.Lock()
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.served.Wait()
}
