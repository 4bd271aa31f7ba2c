package zmqmesh

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/internal/zmqaddr"
)

// GatewayHub is what a [Gateway] needs of a hub: the Bridge of package
// channels is one. Every method may be called by many goroutines at the same
// time. Answers are JSON, those of HTTP.
type GatewayHub interface {
	// Publish publishes a message of the network. It owns body, and returns
	// an answer with and without an error.
	Publish(ctx context.Context, channel, header string, body json.RawMessage) (answer []byte, err error)
	// Channels answers with a part of the list of channels; empty arguments
	// are those that were not given.
	Channels(ctx context.Context, prefix, limit, cursor string) (answer []byte)
	// Channel answers with one channel's numbers.
	Channel(ctx context.Context, name string) (answer []byte)
	// Subscribe calls deliver with each message of a channel, one at a time,
	// until ctx ends. An error says why this can never work.
	Subscribe(ctx context.Context, channel string, deliver func(header string, body json.RawMessage)) error
	// SubscribeAll calls deliver with each message of all channels until ctx
	// ends, from many goroutines. deliver must not wait, nor change or keep
	// the body.
	SubscribeAll(ctx context.Context, deliver func(channel, header string, body json.RawMessage)) error
}

// GatewayOptions configure a Gateway. Hub, and at least one address, have no
// default. Addresses are "tcp://host:port"; host "*", as "0.0.0.0" and none, is
// all interfaces, with IPv6, and port "*", as 0, a free one.
type GatewayOptions struct {
	Hub GatewayHub

	// Pub is where SUB sockets read. Nothing authorises readers: whoever
	// reaches the port reads all channels. Beyond loopback it therefore needs
	// Insecure, even with a Token.
	Pub string
	// Pull is where PUSH sockets publish, without an answer.
	Pull string
	// Rep is where REQ and DEALER sockets publish, with an answer, and ask for
	// the list of channels and one channel's numbers.
	Rep string

	// Token has to be the last frame of each message to Pull and Rep. At
	// least 16 bytes, best random ones. It is sent in the clear. Default: none,
	// and no such frame.
	Token []byte
	// Insecure allows Pub beyond loopback, and Pull and Rep beyond loopback
	// without a Token: anybody who reaches the ports reads, or publishes, on
	// all channels. Only for a network on which every program is trusted.
	Insecure bool

	// MaxMessageBytes bounds a message to Pull or Rep, with all its frames.
	// 1 KiB to 64 MiB; default 1 MiB. The hub has a bound of its own.
	MaxMessageBytes int
	// MaxUnfinishedBytes bounds the messages to Pull and Rep that are on their
	// way: announced, and not yet published. Half of it is for strangers (see
	// MaxConnections) and half for the others, who so never wait for them.
	// Beyond it a message waits, and those that took long to come end with
	// their connections. Messages of up to 8 KiB do not count and do not wait:
	// a small one first makes a stranger known. 2 × MaxMessageBytes to 1 GiB;
	// default 64 MiB, or 2 × MaxMessageBytes if that is more.
	MaxUnfinishedBytes int
	// MaxConnections bounds the connections of each address; each holds up to
	// 32 KiB besides MaxUnfinishedBytes, and one that reads slowly up to
	// QueueBytes. A newcomer then takes the place of a stranger, the oldest of
	// the address that has the most of them: a connection that has never subscribed, or never sent a message or request
	// of the right form, and with the token where there is one. Where there is
	// no stranger, the newcomer is refused. Default 500; at most 4,000.
	MaxConnections int
	// MaxTopics bounds the subscriptions of all SUB sockets together: each
	// channel among them is a subscriber of the hub. Beyond it the socket that
	// has the most is disconnected, but never one with MaxTopics/MaxConnections
	// or fewer. Default 10,000.
	MaxTopics int
	// QueueBytes bounds what waits for one SUB socket. What is more is dropped
	// for it, and counted. Default 8 MiB; at least 64 KiB.
	QueueBytes int

	// Logger gets who was refused, and why; at most one record a second for
	// each kind. Default slog.Default().
	Logger *slog.Logger
}

// A reader gets a PING each readerBeat, and is gone after silentBeats of them
// without a word.
const (
	readerBeat  = 30 * time.Second
	silentBeats = 3
)

// gatewayLinger is how long Close goes on sending what is queued.
const gatewayLinger = time.Second

// The time that a message has to come: at most, and while others wait for the
// room that it holds.
var (
	wholePace   = pace{30 * time.Second, 64 << 10}
	crowdedPace = pace{time.Second, 1 << 20}
)

func (o *GatewayOptions) setDefaults() {
	for p, def := range map[*int]int{&o.MaxMessageBytes: 1 << 20, &o.MaxUnfinishedBytes: max(64<<20, 2*o.MaxMessageBytes), &o.MaxConnections: 500, &o.MaxTopics: 10_000, &o.QueueBytes: 8 << 20} {
		if *p == 0 {
			*p = def
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func (o *GatewayOptions) check() error {
	if o.Hub == nil {
		return errors.New("zmqmesh: GatewayOptions.Hub is missing")
	}
	if o.Pub == "" && o.Pull == "" && o.Rep == "" {
		return errors.New("zmqmesh: GatewayOptions has no address: set Pub, Pull or Rep")
	}
	if len(o.Token) > 0 && len(o.Token) < minKey {
		return fmt.Errorf("zmqmesh: GatewayOptions.Token has %d bytes, which must be %d or more", len(o.Token), minKey)
	}
	for _, a := range []struct {
		field, address string
		closed         bool
		cure           string
	}{
		{"Pub", o.Pub, o.Insecure, "set Insecure, if every program on that network may read all channels"},
		{"Pull", o.Pull, o.Insecure || len(o.Token) > 0, "set Token (or Insecure, if every program on that network is trusted)"},
		{"Rep", o.Rep, o.Insecure || len(o.Token) > 0, "set Token (or Insecure, if every program on that network is trusted)"},
	} {
		if a.address == "" {
			continue
		}
		at, err := checkListen("GatewayOptions."+a.field, a.address)
		if err != nil {
			return err
		}
		if !at.Loopback() && !a.closed {
			return fmt.Errorf("zmqmesh: GatewayOptions.%s is %q, which others can reach: %s", a.field, a.address, a.cure)
		}
	}
	for _, n := range []struct {
		field      string
		is, lo, hi int
	}{
		{"MaxMessageBytes", o.MaxMessageBytes, 1 << 10, 64 << 20},
		{"MaxUnfinishedBytes", o.MaxUnfinishedBytes, 2 * o.MaxMessageBytes, 1 << 30},
		{"MaxConnections", o.MaxConnections, 1, 4_000},
		{"MaxTopics", o.MaxTopics, 1, 10_000_000},
		{"QueueBytes", o.QueueBytes, 64 << 10, 1 << 30},
	} {
		if n.is < n.lo || n.is > n.hi {
			return fmt.Errorf("zmqmesh: GatewayOptions.%s is %d, which must be %d to %d", n.field, n.is, n.lo, n.hi)
		}
	}
	return nil
}

// A Gateway lets ZeroMQ programs of any language read and publish, with
// ordinary sockets that connect to it. It is no part of a Mesh: each replica
// may have one. Its methods may be called by many goroutines at the same time.
//
// A message has three frames: the channel and a zero byte; the header in
// Latin-1; the body as JSON. What goes out has "?" in the place of the
// header's characters that Latin-1 has not, and the body in ASCII, with
// everything above U+007F escaped. What comes in may have the body in UTF-8,
// and leave out the zero byte; the token, where there is one, is a fourth frame.
//
// SUB sockets subscribe to "news\0" for that channel, to "news" for all that
// begin so, and to "" for all. Delivery is at most once: a subscriber that
// reads too slowly loses messages. A channel asked for by its whole name comes
// in the order of its history; what matches only a beginning comes as it
// arrives, from all replicas where the mesh is a [mesh.AllSubscriber], and
// otherwise from this one and of channels with subscribers here. A reader that
// changes between the two on one channel, as by adding "news\0" to "news", may
// miss messages of that moment or get some of them twice: the two ways are not
// equally fast.
//
// Readers that speak ZMTP 3.1, as those of libzmq 4.3 do, or that send heartbeats
// of their own, get a PING each 30 seconds, with a time to live of 90. One that
// says nothing for so long, though nothing waits for it, is hung up: a program
// that is stopped, or has gone behind a proxy that has not.
//
// CONFLATE does not go with messages of several frames: a reader with it gets
// nothing, or bodies without a topic, and a PUSH socket with it is refused. Read
// until nothing waits, and keep the last.
//
// A message to Pull or Rep has half a minute to come, and a second for each
// 64 KiB of it; between messages peers may be silent for as long as they like.
//
// Rep answers requests with one frame of JSON in ASCII, that of HTTP:
//
//	["publish", channel, header, body]
//	["list", prefix, limit, cursor]    where all but "list" may be left out
//	["channel", name]
type Gateway struct {
	opts  GatewayOptions
	log   *slog.Logger
	token [sha256.Size]byte // of Token
	whole pace              // of messages

	strangers, known *room         // for messages of these
	beat             time.Duration // between two PINGs to a reader

	readers readers
	pub     *endpoint // nil where there is none
	pull    *endpoint
	rep     *endpoint

	published, rejected, dropped, refused atomic.Int64
	warned                                sparingly.Turn // of a rejected message

	ctx     context.Context // of what peers asked for
	cancel  context.CancelFunc
	running sync.WaitGroup // the accept loops, and the readers' subscriptions
	closing sync.Once
}

// GatewayStats are a gateway's totals since it was opened.
type GatewayStats struct {
	Readers   int   // SUB sockets that are connected now
	Published int64 // messages that Pull and Rep have published
	Rejected  int64 // messages and requests of Pull and Rep that were not done
	Dropped   int64 // messages that were not sent to a reader: it reads too slowly, or has gone
	Refused   int64 // connections that were turned away, or ended for what they sent
}

// An endpoint is one address.
type endpoint struct {
	*listener
	typ    zmq4.SocketType
	limits limits
	max    int   // connections that have shaken hands
	known  *room // for messages of those that are no strangers

	mu        sync.Mutex // guards the fields below
	open      map[*gatewayConn]bool
	strangers crowd[*gatewayConn] // those of them that nothing was accepted from
}

var (
	errTooManyConns = errors.New("zmqmesh: as many connections are open as may be, and have all been of use (MaxConnections)")
	errStranger     = errors.New("zmqmesh: it made way for another, as nothing was accepted from it yet (MaxConnections)")
)

// NewGateway opens a gateway. It fails where the options contradict themselves
// or an address cannot be bound. Close frees what it holds, and comes before
// the hub's Shutdown.
func NewGateway(o GatewayOptions) (*Gateway, error) {
	return newGateway(o, wholePace, crowdedPace, readerBeat)
}

func newGateway(o GatewayOptions, whole, crowded pace, beat time.Duration) (*Gateway, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	g := &Gateway{opts: o, log: o.Logger, token: sha256.Sum256(o.Token), whole: whole, beat: beat}
	g.readers.gateway = g
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.strangers, g.known = newRoom(o.MaxUnfinishedBytes/2, crowded), newRoom(o.MaxUnfinishedBytes/2, crowded)
	asking := limits{frame: 1 << 10, message: 1 << 10, frames: 1}
	sending := limits{frame: o.MaxMessageBytes, message: o.MaxMessageBytes, frames: 4}
	request := limits{frame: o.MaxMessageBytes, message: o.MaxMessageBytes, frames: 16}
	var err error
	if g.pub, err = g.listen(o.Pub, zmq4.XPub, asking, g.servePub); err == nil {
		if g.pull, err = g.listen(o.Pull, zmq4.Pull, sending, g.servePull); err == nil {
			g.rep, err = g.listen(o.Rep, zmq4.Router, request, g.serveRep)
		}
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// listen opens an address, and has serve hold each connection from the end of
// its handshake on.
func (g *Gateway) listen(address string, typ zmq4.SocketType, l limits, serve func(*gatewayConn) error) (*endpoint, error) {
	if address == "" {
		return nil, nil
	}
	at, _ := zmqaddr.Parse(address) // as check has
	ln, err := net.Listen("tcp", at.HostPort())
	if err != nil {
		return nil, fmt.Errorf("zmqmesh: %w", err)
	}
	// The listener bounds those that shake hands, and the endpoint the others.
	e := &endpoint{listener: newListener(ln, "gateway", nil, g.log.With("socket", string(typ)), math.MaxInt, &g.refused),
		typ: typ, limits: l, max: g.opts.MaxConnections, known: g.known, open: map[*gatewayConn]bool{}}
	g.running.Go(func() { // ends with the listener
		e.serve(func(c net.Conn, shaken func()) error {
			conn, err := e.shake(c)
			if err != nil {
				return err
			}
			shaken()
			ctx, cancel := context.WithCancelCause(g.ctx)
			defer cancel(nil)
			conn.guard.ctx, conn.guard.cancel = ctx, cancel
			conn.guard.whole, conn.guard.room = &g.whole, g.strangers
			if err := e.enter(conn); err != nil {
				return err
			}
			defer e.leave(conn)
			err = serve(conn)
			conn.guard.done()
			if why := context.Cause(ctx); why != nil {
				return why
			}
			return err
		})
	})
	return e, nil
}

// enter takes a connection in. Where there are as many as may be, a stranger
// makes way: silent connections keep nobody out, as while they shake hands. It is
// the oldest of the address that has the most.
func (e *endpoint) enter(c *gatewayConn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	full := len(e.open) >= e.max
	if full && len(e.strangers.all) == 0 {
		return errTooManyConns
	}
	e.strangers.add(c, c.guard.RemoteAddr())
	if full {
		first := e.strangers.takeOldest()
		delete(e.open, first)
		first.guard.end(errStranger) // at once, as no stranger is publishing
	}
	e.open[c] = true
	return nil
}

func (e *endpoint) leave(c *gatewayConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, c)
	e.strangers.remove(c)
}

// A gatewayConn is a connection that has shaken hands. Its goroutine is the
// listener's.
type gatewayConn struct {
	*zmq4.Conn
	guard    *guard
	endpoint *endpoint
	known    bool
}

// accepted is for a connection whose message has the right form, and the token
// where there is one, or that has subscribed: it is no stranger any more. It
// comes before the message is published, which may take long.
func (c *gatewayConn) accepted() {
	if c.known {
		return
	}
	c.known = true
	c.endpoint.mu.Lock()
	defer c.endpoint.mu.Unlock()
	c.endpoint.strangers.remove(c)
}

// gatewayBuffer is small, as a gateway's connections are many and mostly idle.
const gatewayBuffer = 8 << 10

func (e *endpoint) shake(c net.Conn) (*gatewayConn, error) {
	g := newGuard(c, string(zmq4.NullSecurity), e.limits, gatewayBuffer)
	g.patient = true // TCP's own keepalive finds out who is gone, or a PING
	conn, err := g.shake(null.Security(), e.typ, "", true)
	if err != nil {
		return nil, err
	}
	return &gatewayConn{Conn: conn, guard: g, endpoint: e}, nil
}

// done is for who has done with a message.
func (c *gatewayConn) done() {
	c.guard.done()
	if c.known {
		c.guard.room = c.endpoint.known
	}
}

// address is where the endpoint is, or "".
func (e *endpoint) address() string {
	if e == nil {
		return ""
	}
	return "tcp://" + e.Addr().String()
}

// Addresses are what is bound, also where port 0 was asked for; empty for
// sockets that there are not.
func (g *Gateway) Addresses() (pub, pull, rep string) {
	return g.pub.address(), g.pull.address(), g.rep.address()
}

// Stats is cheap and never waits.
func (g *Gateway) Stats() GatewayStats {
	return GatewayStats{Readers: g.readers.count(), Published: g.published.Load(), Rejected: g.rejected.Load(),
		Dropped: g.dropped.Load(), Refused: g.refused.Load()}
}

// admit takes the token off a message.
func (g *Gateway) admit(frames [][]byte) ([][]byte, error) {
	if len(g.opts.Token) == 0 {
		return frames, nil
	}
	if n := len(frames) - 1; n >= 0 {
		if sum := sha256.Sum256(frames[n]); subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1 {
			return frames[:n], nil
		}
	}
	return nil, errBadToken
}

// reject counts what was not done. As anybody can cause it, it is logged once
// a second at most.
func (g *Gateway) reject(c *gatewayConn, why error) {
	if n := g.rejected.Add(1); g.warned.Now(time.Second) {
		g.log.Warn("gateway: rejected a message", "from", c.guard.RemoteAddr().String(), "rejected", n, "err", why)
	}
}

// Close takes no more, sends what is queued for readers that take it, for at
// most a second, and ends all connections. A second Close does nothing.
func (g *Gateway) Close() error {
	g.closing.Do(func() {
		for _, e := range []*endpoint{g.pub, g.pull, g.rep} {
			if e != nil {
				e.stop()
			}
		}
		g.cancel()
		for _, e := range []*endpoint{g.pull, g.rep} {
			if e != nil {
				e.close()
			}
		}
		g.readers.leave()
		if g.pub != nil {
			g.pub.close()
		}
		g.running.Wait()
	})
	return nil
}
