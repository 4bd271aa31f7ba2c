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

// A conn is a connection of this package's own to the server that has a link's
// slot, made with the settings of the user's client. One from the client's pool
// would not do: nobody could tell to which server it leads, or end it when that
// server is a replica now, and its timeouts may be off.
type conn struct {
	client *redis.Client // of one connection
	server *redis.Client // the user's, whose settings it has
	mesh   *Mesh
	wire   atomic.Pointer[wire] // nil before it is dialled
}

// ioWait bounds a read or write where the user's client has no bound.
const ioWait = 5 * time.Second

// connect prepares a connection, which is dialled with its first command.
func (l *link) connect(ctx context.Context) (*conn, error) {
	server, err := l.server(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{server: server, mesh: l.mesh}
	o := *server.Options() // a copy; the client's own are not touched
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
		w := &wire{Conn: nc, mesh: l.mesh}
		w.hear()
		c.wire.Store(w)
		return w, nil
	}
	o.OnConnect = func(ctx context.Context, cn *redis.Conn) error {
		if greet != nil {
			if err := greet(ctx, cn); err != nil {
				return err
			}
		}
		return roleIn(cn.Do(ctx, "hello"))
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

// remote is the address of the server, or "" before it is dialled.
func (c *conn) remote() string {
	if w := c.wire.Load(); w != nil {
		return w.RemoteAddr().String()
	}
	return ""
}

// heard is when the server was last heard of, on the mesh's clock.
func (c *conn) heard() time.Duration {
	if w := c.wire.Load(); w != nil {
		return time.Duration(w.heard.Load())
	}
	return 0
}

// cut ends the connection, whoever reads or writes at this moment.
func (c *conn) cut() {
	if w := c.wire.Load(); w != nil {
		_ = w.Close()
	}
}

// allow gives what is written and read next more time than the timeouts, for
// its size: a large body that was repeated too early would come twice, and each
// subscriber's output buffer at Redis would have to hold both.
func (c *conn) allow(size int) {
	if w := c.wire.Load(); w != nil {
		w.extra.Store(int64(size>>20) * int64(perMiB))
	}
}

const perMiB = 500 * time.Millisecond

// wire notes when something comes.
type wire struct {
	net.Conn
	mesh         *Mesh
	heard, extra atomic.Int64
}

func (w *wire) SetReadDeadline(t time.Time) error  { return w.Conn.SetReadDeadline(w.later(t)) }
func (w *wire) SetWriteDeadline(t time.Time) error { return w.Conn.SetWriteDeadline(w.later(t)) }

func (w *wire) later(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Duration(w.extra.Load()))
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.hear()
	}
	return n, err
}

func (w *wire) hear() { w.heard.Store(int64(w.mesh.clock())) }

// dialWithin ends with ctx, also where the user's dialer does not.
func dialWithin(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, addr string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	nc, err := inTime(ctx, func() (net.Conn, error) { return dial(ctx, network, addr) }, func(late net.Conn) { _ = late.Close() })
	if err == nil && nc == nil {
		err = errors.New("the Redis client's Dialer has returned no connection")
	}
	return nc, err
}

// inTime calls f, and returns without its answer where ctx ends before. What
// comes too late, and is no error, is given to late.
func inTime[T any](ctx context.Context, f func() (T, error), late func(T)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() { // ends with f
		v, err := f()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		if late != nil {
			go func() { // ends with f
				if a := <-answers; a.err == nil {
					late(a.v)
				}
			}()
		}
		var none T
		return none, ctx.Err()
	}
}

// errReplica says that a server is not the one to publish on.
var errReplica = errors.New("the server is a replica of another one: what is published on it does not reach those who are subscribed at its master. The Redis client has to lead to the master")

// roleIn looks at the answer to HELLO, which each client may ask for. A proxy
// that does not know it says nothing of its server.
func roleIn(cmd *redis.Cmd) error {
	reply, err := cmd.Result()
	var refused redis.Error
	if errors.As(err, &refused) {
		return nil
	}
	if err != nil {
		return err
	}
	role := ""
	switch reply := reply.(type) {
	case []any: // RESP2
		for i := 0; i+1 < len(reply); i += 2 {
			if reply[i] == "role" {
				role = fmt.Sprint(reply[i+1])
			}
		}
	case map[any]any:
		role = fmt.Sprint(reply["role"])
	}
	if role == "replica" || role == "slave" {
		return errReplica
	}
	return nil
}
