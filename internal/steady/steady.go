// Package steady writes to peers that may be slow, but not stuck: what bounds a
// write is how long the peer takes nothing at all, not how long it needs for
// the whole.
package steady

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// looks is how often a write that waits looks for progress until it gives
	// up. It has to look, as the system wakes a writer only when about a third
	// of the socket's buffer is free again, which at 300 KB/s may take longer
	// than the peer is given, although it takes something all the time.
	looks = 8
	// piece is what is written at once where a write that was cut off cannot go
	// on: one record of TLS.
	piece = 16 << 10 // bytes
)

// Write writes all of b, however long that takes, as long as the connection
// takes some of it within each stall. Where it takes nothing for so long, or up
// to a quarter longer, the error is [os.ErrDeadlineExceeded].
//
// After a write that was cut off, a socket goes on where it was. Other
// connections may not, as that of TLS, where half a record is out then. They get
// pieces of 16 KiB, and stall for each of them; put a [Conn] beneath TLS where
// that is possible.
//
// Write sets the connection's write deadline, and leaves one behind. Close ends
// it at once, another goroutine's deadline does not.
func Write(c net.Conn, b []byte, stall time.Duration) (n int, err error) {
	if _, socket := c.(syscall.Conn); !socket {
		return writePieces(c, b, stall)
	}
	taken := time.Now()
	for {
		now := time.Now()
		if err := c.SetWriteDeadline(now.Add(max(stall/looks, 1))); err != nil {
			return n, err
		}
		k, err := c.Write(b[n:])
		n += k
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if now = time.Now(); k > 0 {
			taken = now
		} else if now.Sub(taken) >= stall {
			return n, err
		}
	}
}

func writePieces(c net.Conn, b []byte, stall time.Duration) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		if err := c.SetWriteDeadline(time.Now().Add(stall)); err != nil {
			return n, err
		}
		k, err := c.Write(b[n:min(n+piece, len(b))])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// A Conn is a connection whose Write is that of this package once SetStall was
// called: to be put beneath TLS, which then sees no deadline where the peer has
// only been slow. Its methods may be called as those of the connection that it
// holds. While there is a stall, SetDeadline and SetWriteDeadline have no effect
// on what is written.
type Conn struct {
	net.Conn
	stall atomic.Int64
}

// NewConn returns a Conn without a stall: it writes as c does.
func NewConn(c net.Conn) *Conn { return &Conn{Conn: c} }

// SetStall is how long the peer may take nothing, from the next Write on.
func (c *Conn) SetStall(stall time.Duration) { c.stall.Store(int64(stall)) }

// Write is [Write] where there is a stall.
func (c *Conn) Write(b []byte) (int, error) {
	if stall := c.stall.Load(); stall > 0 {
		return Write(c.Conn, b, time.Duration(stall))
	}
	return c.Conn.Write(b)
}
