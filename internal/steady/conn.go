package steady

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/channels-go/channels/internal/rawio"
)

// A Conn is a connection whose Write is this package's after SetStall. It is for
// use beneath TLS, which then sees no deadline if the peer was only slow. Its
// methods may be called like those of the connection in it. After SetStall,
// SetDeadline and SetWriteDeadline do not affect writes.
//
// Sockets are read by package rawio, and so is what fits at once written after SetStall.
type Conn struct {
	net.Conn
	stall   atomic.Int64
	raw     syscall.RawConn // nil if rawio cannot use the connection
	network string          // of a socket, as package net calls it in errors
	in, out half
}

// A half is one direction of a socket. Its functions are kept, since one for each call
// would be allocated.
type half struct {
	mu    sync.Mutex // held until something is read, or all is written
	b     []byte
	n     int
	err   error
	read  func(fd uintptr) bool
	write func(fd uintptr)
}

// NewConn returns a Conn without a stall: it writes as c does.
func NewConn(c net.Conn) *Conn {
	n := &Conn{Conn: c}
	n.raw, _ = rawio.Conn(c) // it fails only for a connection that is none
	if n.network = "tcp"; n.raw != nil {
		if _, unix := c.(*net.UnixConn); unix {
			n.network = "unix"
		}
	}
	in, out := &n.in, &n.out
	in.read = func(fd uintptr) bool {
		in.n, in.err = rawio.Read(fd, in.b)
		return in.err != rawio.ErrWouldBlock
	}
	out.write = func(fd uintptr) { out.n, out.err = rawio.Write(fd, out.b) }
	return n
}

// SetStall sets how long the peer may take nothing, from the next Write on.
func (c *Conn) SetStall(stall time.Duration) { c.stall.Store(int64(stall)) }

// Read is that of the connection.
func (c *Conn) Read(b []byte) (int, error) {
	if c.raw == nil || len(b) == 0 {
		return c.Conn.Read(b)
	}
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.b = b
	err := c.raw.Read(in.read)
	in.b = nil
	if err == nil {
		err = in.err
	}
	switch {
	case err != nil:
		return 0, c.failed("read", err)
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

// Write is [Write] if there is a stall.
func (c *Conn) Write(b []byte) (n int, err error) {
	if c.raw == nil {
		if stall := c.stall.Load(); stall > 0 {
			return Write(c.Conn, b, time.Duration(stall))
		}
		return c.Conn.Write(b)
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	stall := time.Duration(c.stall.Load())
	if stall <= 0 {
		return c.Conn.Write(b)
	}
	if n, err = c.try(b); err != nil || n == len(b) {
		return n, err
	}
	k, err := Write(c.Conn, b[n:], stall)
	return n + k, err
}

// try writes what fits into the socket's buffer. Mostly that is all, and then it costs no
// deadline.
func (c *Conn) try(b []byte) (int, error) {
	out := &c.out
	out.b = b
	err := c.raw.Control(out.write)
	out.b = nil
	if err == nil && out.err != rawio.ErrWouldBlock {
		err = out.err
	}
	if err != nil {
		return 0, c.failed("write", err)
	}
	return out.n, nil
}

// failed is an error of a call, or of what calls it, as package net has those of a
// connection.
func (c *Conn) failed(op string, err error) error {
	if raw, ok := err.(*net.OpError); ok { // of the same connection, but of "raw-read"
		err = raw.Err
	} else {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
