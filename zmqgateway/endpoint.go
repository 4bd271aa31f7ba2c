package zmqgateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"

	"github.com/channels-go/channels/internal/zmtp"
)

// An endpoint is one address of a gateway. Its listener bounds the connections
// that are in their handshake, and it bounds the others.
type endpoint struct {
	*zmtp.Listener
	typ    zmq4.SocketType
	limits zmtp.Limits
	serve  func(*conn) error
	max    int   // connections after their handshake
	known  *room // for the messages of those that are no strangers

	mu        sync.Mutex // guards the fields below
	open      map[*conn]bool
	strangers zmtp.Crowd[*conn] // those among them from which nothing was accepted yet
}

var (
	errTooManyConns = errors.New("zmqgateway: MaxConnections is reached, and none of the connections is a stranger")
	errStranger     = errors.New("zmqgateway: this stranger made way for a newcomer (MaxConnections)")
)

// listen opens an address. serve runs each connection from the end of its
// handshake on, in the connection's goroutine.
func (g *Gateway) listen(address string, typ zmq4.SocketType, l zmtp.Limits, serve func(*conn) error) (*endpoint, error) {
	if address == "" {
		return nil, nil
	}
	at, _ := zmtp.ParseListen(address) // Options.check has
	ln, err := net.Listen("tcp", at.HostPort())
	if err != nil {
		return nil, fmt.Errorf("zmqgateway: %w", err)
	}
	e := &endpoint{typ: typ, limits: l, serve: serve, max: g.opts.MaxConnections, known: g.known, open: map[*conn]bool{}}
	e.Listener = zmtp.NewListener(ln, zmtp.ListenerOptions{Name: "gateway", Logger: g.log.With("socket", string(typ)), Max: math.MaxInt, Refused: &g.refused})
	g.running.Go(func() { // ends with the listener
		e.Serve(func(nc net.Conn, shaken func()) error { return g.handle(e, nc, shaken) })
	})
	return e, nil
}

// handle shakes hands, and serves a connection until it ends.
func (g *Gateway) handle(e *endpoint, nc net.Conn, shaken func()) error {
	c, err := e.shake(nc)
	if err != nil {
		return err
	}
	shaken()
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	c.ctx, c.cancel, c.room = ctx, cancel, g.strangers
	c.guard.Whole, c.guard.Admission = &g.pace.whole, c
	if err := e.enter(c); err != nil {
		return err
	}
	defer e.leave(c)
	err = e.serve(c)
	c.giveBack()
	if why := context.Cause(ctx); why != nil {
		return why
	}
	return err
}

// address is where the endpoint is. A nil endpoint has none.
func (e *endpoint) address() string {
	if e == nil {
		return ""
	}
	return "tcp://" + e.Addr().String()
}

// bufferBytes is small, because a gateway has many connections, mostly idle.
const bufferBytes = 8 << 10

func (e *endpoint) shake(nc net.Conn) (*conn, error) {
	g := zmtp.NewGuard(nc, zmtp.Rules{Mechanism: string(zmq4.NullSecurity), Limits: e.limits, Buffer: bufferBytes,
		Patient: true}) // TCP's keepalive, or a PING, finds out which peers have gone
	c, err := g.Shake(null.Security(), e.typ, "", true)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, guard: g, endpoint: e}, nil
}

// enter takes a connection in. If there are as many as are allowed, a stranger
// makes way: the oldest from the address that has the most. So connections that
// are of no use keep nobody out, as during the handshake.
func (e *endpoint) enter(c *conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	full := len(e.open) >= e.max
	if full && e.strangers.Len() == 0 {
		return errTooManyConns
	}
	e.strangers.Add(c, c.guard.RemoteAddr())
	if full {
		first := e.strangers.TakeOldest()
		delete(e.open, first)
		first.end(errStranger) // at once, because no stranger is publishing
	}
	e.open[c] = true
	return nil
}

func (e *endpoint) leave(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, c)
	e.strangers.Remove(c)
}

// A conn is a connection after its handshake. Its goroutine is the listener's.
// It is the guard's Admission: large messages ask its room for memory.
type conn struct {
	*zmq4.Conn
	guard    *zmtp.Guard
	endpoint *endpoint
	known    bool

	ctx    context.Context // ends what the connection waits for
	cancel context.CancelCauseFunc
	room   *room
	holds  int // bytes of the room, for the present message
}

// accepted makes a connection known: it has subscribed, or sent a message of the
// right form, with the token if there is one. It is called before the message is
// published, which may take long.
func (c *conn) accepted() {
	if c.known {
		return
	}
	c.known = true
	c.endpoint.mu.Lock()
	defer c.endpoint.mu.Unlock()
	c.endpoint.strangers.Remove(c)
}

// end disconnects. Its own goroutine then returns why.
func (c *conn) end(why error) {
	c.cancel(why)
	c.guard.HangUp()
}

// Announced takes room for what has been announced of a message. If more is to
// come, that is taken to be small, like a token, so that only a message with two
// large frames takes twice.
func (c *conn) Announced(size int, more bool) (waited time.Duration, err error) {
	if size <= max(c.holds, smallMessage) {
		return 0, nil
	}
	want := size
	if more {
		want = min(want+smallMessage, c.endpoint.limits.Message)
	}
	start := time.Now()
	err = c.room.take(c, want-c.holds)
	return time.Since(start), err
}

// Complete keeps the room of a message that has come as a whole.
func (c *conn) Complete() {
	if c.holds > 0 {
		c.room.complete(c)
	}
}

// giveBack returns the room of a message that is published or refused.
func (c *conn) giveBack() {
	if c.holds > 0 {
		c.room.giveBack(c)
	}
}

// done ends a message: its room is given back, and a connection that has become
// known takes its next room among the known ones.
func (c *conn) done() {
	c.giveBack()
	if c.known {
		c.room = c.endpoint.known
	}
}

// pong answers a PING. The goroutine that reads calls it, which on Pull and Rep
// is also the only one that writes. If it fails, so will the next read.
func (c *conn) pong(context []byte) {
	c.guard.Write(zmtp.AppendPong(nil, context))
	c.guard.Flush()
}
