package redismesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A conn is this package's own connection to the server that has a link's slot,
// made with the settings of the user's client. A connection from the client's
// pool would not do: it is not known to which server it leads, it could not be
// closed when that server becomes a replica, and its timeouts may be off.
type conn struct {
	client *redis.Client // with a single connection
	server *redis.Client // the user's client, whose settings it has
	mesh   *Mesh
	wire   atomic.Pointer[wire] // nil until it is dialled
	heard  atomic.Int64         // when the server was last heard from, by the mesh's clock
	extra  atomic.Int64         // how much is added to the timeouts
}

// ioWait bounds a read or write if the user's client has no timeout.
const ioWait = 5 * time.Second

// connect prepares a connection. Its first command dials it.
func (l *link) connect(ctx context.Context) (*conn, error) {
	server, err := l.server(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{server: server, mesh: l.mesh}
	o := *server.Options() // a copy, so that the client's own options stay unchanged
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = ioWait
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = ioWait
	}
	dial, greet := o.Dialer, o.OnConnect
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dialWithin(ctx, dial, network, addr)
		if err != nil {
			return nil, err
		}
		w := &wire{nc, c}
		c.hear()
		c.wire.Store(w)
		return w, nil
	}
	o.OnConnect = func(ctx context.Context, cn *redis.Conn) error {
		if greet != nil {
			if err := greet(ctx, cn); err != nil {
				return err
			}
		}
		return roleIn(hello(ctx, cn))
	}
	o.ContextTimeoutEnabled = false // the timeouts above bound each read and write
	o.MaxRetries, o.DialerRetries = -1, 1
	o.PoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 1, 0, 0, 0
	o.PoolTimeout = connectWait
	o.PipelineReadBufferSize, o.PipelineWriteBufferSize, o.PipelinePoolSize = 0, 0, 0
	o.ConnMaxIdleTime, o.ConnMaxLifetime = -1, 0
	o.ClientSideCache, o.ClientSideCacheConfig, o.PushNotificationProcessor = nil, nil, nil
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c.client = redis.NewClient(&o)
	return c, nil
}

// remote returns the address of the server, or "" before it is dialled.
func (c *conn) remote() string {
	if w := c.wire.Load(); w != nil {
		return w.RemoteAddr().String()
	}
	return ""
}

func (c *conn) hear() { c.heard.Store(int64(c.mesh.clock())) }

// cut closes the connection, even during a read or write.
func (c *conn) cut() {
	if w := c.wire.Load(); w != nil {
		_ = w.Close()
	}
}

// allow extends the timeouts of the next writes and reads according to their
// size. A large body that was resent too early would arrive twice, and each
// subscriber's output buffer at Redis would have to hold both.
func (c *conn) allow(size int) { c.extra.Store(int64(size>>20) * int64(perMiB)) }

const perMiB = 500 * time.Millisecond

// wire records when data arrives.
type wire struct {
	net.Conn
	conn *conn
}

func (w *wire) SetReadDeadline(t time.Time) error  { return w.Conn.SetReadDeadline(w.later(t)) }
func (w *wire) SetWriteDeadline(t time.Time) error { return w.Conn.SetWriteDeadline(w.later(t)) }

func (w *wire) later(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Duration(w.conn.extra.Load()))
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.conn.hear()
	}
	return n, err
}

// dialWithin ends with ctx, even if the user's dialer does not.
func dialWithin(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	nc, err := inTime(ctx, func() (net.Conn, error) { return dial(ctx, network, addr) }, func(late net.Conn) { _ = late.Close() })
	if err == nil && nc == nil {
		err = errors.New("the Redis client's Dialer returned neither a connection nor an error")
	}
	return nc, err
}

// inTime calls f. If ctx ends first, it returns without f's answer. An answer
// that comes later and is no error is passed to late.
func inTime[T any](ctx context.Context, f func() (T, error), late func(T)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer)
	go func() { // ends with f
		v, err := f()
		select {
		case answers <- answer{v, err}:
		case <-ctx.Done():
			if err == nil && late != nil {
				late(v)
			}
		}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// errReplica means that the server is a replica and must not be published on.
var errReplica = errors.New("the server is a replica of another one: messages published on it do not reach subscribers at its master. The Redis client must connect to the master")

// hello asks for the server's role, among others. Every client may send it. A
// pipeline only queues it.
func hello(ctx context.Context, to interface {
	Process(context.Context, redis.Cmder) error
}) *redis.MapStringInterfaceCmd {
	cmd := redis.NewMapStringInterfaceCmd(ctx, "hello")
	_ = to.Process(ctx, cmd) // cmd has the error
	return cmd
}

// roleIn checks the role in the answer to hello. A proxy that answers with an
// error does not reveal its server's role; roleIn then returns nil. An answer that
// is neither an error nor a map is an error here, as it is to go-redis, which
// begins each connection with a HELLO of its own.
func roleIn(hello *redis.MapStringInterfaceCmd) error {
	reply, err := hello.Result()
	var refused redis.Error
	switch role := reply["role"]; {
	case errors.As(err, &refused):
		return nil
	case errors.As(err, new(*net.OpError)), errors.Is(err, errReplica): // HELLO was not asked for
		return err
	case err != nil:
		return fmt.Errorf("the server's answer to HELLO: %w", err)
	case role == "replica" || role == "slave":
		return errReplica
	}
	return nil
}
