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
// Sockets are read and written by package rawio.
type Conn struct {
	net.Conn
	stall   atomic.Int64
	raw     syscall.RawConn // nil if rawio cannot use the connection
	in, out half
}

// A half is one direction of a socket. Its functions are kept, since one for each call
// would be allocated.
type half struct {
	mu    sync.Mutex // held until all is read or written
	b     []byte
	n     int
	err   error
	read  func(fd uintptr) bool
	write func(fd uintptr)
}

// NewConn returns a Conn without a stall: it writes as c does.
func NewConn(c net.Conn) *Conn {
	n := &Conn{Conn: c}
	n.raw, _ = rawio.Conn(c) // it fails for a closed connection, as all else does
	in, out := &n.in, &n.out
	in.read = func(fd uintptr) bool {
		in.n, in.err = rawio.Read(fd, in.b)
		return in.err != syscall.EAGAIN
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
	switch {
	case err != nil:
		return 0, err
	case in.err != nil:
		return 0, c.failed("read", in.err)
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

// Write is [Write] if there is a stall.
func (c *Conn) Write(b []byte) (n int, err error) {
	stall := time.Duration(c.stall.Load())
	if stall <= 0 {
		return c.Conn.Write(b)
	}
	if c.raw == nil {
		return Write(c.Conn, b, stall)
	}
	out := &c.out
	out.mu.Lock()
	defer out.mu.Unlock()
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
	if err == nil && out.err != nil && out.err != syscall.EAGAIN {
		err = c.failed("write", out.err)
	}
	if err != nil {
		return 0, err
	}
	return out.n, nil
}

// failed is a connection's error as package net has it.
func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
