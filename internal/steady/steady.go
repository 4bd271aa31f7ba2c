// Package steady writes to peers that may be slow, but not stuck. A write fails
// if the peer takes nothing for some time, however long the whole takes.
package steady

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// looks is how often a waiting write looks for progress before it gives up.
	// The system wakes a writer only when about a third of the socket's buffer
	// is free again. At 300 KB/s that may take longer than the peer has,
	// although the peer reads all the time.
	looks = 8
	// piece is how much is written at once to a connection that cannot continue
	// an interrupted write: one record of TLS.
	piece = 16 << 10 // bytes
)

// Write writes all of b, however long that takes, if the peer takes some of it
// within each stall. If the peer takes nothing for that long, or up to a quarter
// longer, the error is [os.ErrDeadlineExceeded].
//
// A socket continues an interrupted write where it stopped. Other connections
// may not: TLS has sent half a record then. They get pieces of 16 KiB, and a
// stall for each; put a [Conn] beneath TLS if you can.
//
// Write sets the connection's write deadline, and leaves one behind. Close ends
// it at once; a deadline that another goroutine sets does not.
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
