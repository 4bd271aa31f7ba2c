package zmtp

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/sparingly"
)

const (
	// MaxShaking is how many connections of one listener may be in their
	// handshake.
	MaxShaking   = 512
	shakingGrace = 400 * time.Millisecond // in which they are not the first to make way
)

// ListenerOptions configure a Listener. All but TLS are required.
type ListenerOptions struct {
	Name    string // begins each log message: "NAME: refused a connection"
	Logger  *slog.Logger
	TLS     *tls.Config   // nil: none
	Max     int           // connections after their handshake
	Refused *atomic.Int64 // counts the connections that were turned away
}

// A Listener accepts connections, serves each in a goroutine of its own, and
// bounds them. If too many are in their handshake, earlier ones make way for
// later ones, so that silent connections keep nobody out.
type Listener struct {
	net.Listener
	opts    ListenerOptions
	warned  sparingly.Turn        // about refused connections
	failing atomic.Pointer[error] // why nothing can be accepted at the moment
	failed  sparingly.Turn        // about failing, which a flood of connections can cause again and again

	mu      sync.Mutex // guards the fields below
	shaking Crowd[net.Conn]
	conns   map[net.Conn]bool
	closed  bool

	served sync.WaitGroup // the connections' goroutines
}

// NewListener returns a listener that accepts from ln once Serve is called.
func NewListener(ln net.Listener, o ListenerOptions) *Listener {
	return &Listener{Listener: ln, opts: o, conns: make(map[net.Conn]bool)}
}

// Serve calls handle for each connection until the listener is stopped. handle
// calls shaken at the end of the handshake. When it returns, the connection is
// closed; an error means that it was turned away.
func (l *Listener) Serve(handle func(c net.Conn, shaken func()) error) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if l.isClosed() {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil { // say, the process has too many open files
			if l.failing.Swap(&err) == nil && l.failed.Now(time.Second) {
				l.opts.Logger.Error(l.opts.Name+": no connections can be accepted", "err", err)
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

// Err returns why nothing can be accepted at the moment, or nil.
func (l *Listener) Err() error {
	if err := l.failing.Load(); err != nil {
		return fmt.Errorf("zmtp: accepting connections: %w", *err)
	}
	return nil
}

// start serves a connection in a goroutine, which ends with the connection.
func (l *Listener) start(c net.Conn, handle func(c net.Conn, shaken func()) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns)-l.shaking.Len() >= l.opts.Max {
		l.opts.Refused.Add(1)
		c.Close()
		return
	}
	if l.shaking.Add(c, c.RemoteAddr()); l.shaking.Len() > MaxShaking {
		l.shaking.TakeAny(shakingGrace).Close() // its goroutine counts it
	}
	l.conns[c] = true
	l.served.Go(func() {
		defer l.remove(c)
		secured, err := c, error(nil)
		if l.opts.TLS != nil {
			secured, err = secure(c, l.opts.TLS)
		}
		if err == nil {
			err = handle(secured, func() { l.endShaking(c) })
		}
		if err != nil {
			l.refuse(c, err)
		}
	})
}

// refuse counts a connection that was turned away. Anybody can cause that, so it
// is logged once a second at most.
func (l *Listener) refuse(c net.Conn, why error) {
	if l.isClosed() {
		return
	}
	if n := l.opts.Refused.Add(1); l.warned.Now(time.Second) {
		l.opts.Logger.Warn(l.opts.Name+": refused a connection", "from", c.RemoteAddr().String(), "refused", n, "err", why)
	}
}

func (l *Listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *Listener) endShaking(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaking.Remove(c)
}

func (l *Listener) remove(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaking.Remove(c)
	delete(l.conns, c)
}

// Stop accepts no more, and closes the connections that are in their handshake.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.Listener.Close()
	for _, c := range l.shaking.All() {
		c.Close()
	}
}

// Close stops, closes all connections, and waits for their goroutines.
func (l *Listener) Close() error {
	l.Stop()
	l.mu.Lock()
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.served.Wait()
	return nil
}
