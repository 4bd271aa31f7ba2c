//go:build linux || darwin

package channels

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A chunk is what is read at once. A connection holds one only while it has
// bytes that the library has not taken.
type chunk [4 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// tryRead makes one non-blocking read into c.early. It returns false if nothing
// has come yet. The error, which the system tells only once, is kept.
func (c *conn) tryRead(fd uintptr) bool {
	b := chunks.Get().(*chunk)
	for {
		n, err := syscall.Read(int(fd), b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			c.early, c.chunk = b[:n], b
			c.received.bytes.Add(int64(n))
			c.alive.Store(true)
			return true
		case err == nil:
			c.readErr = io.EOF
		case err != syscall.EAGAIN:
			c.readErr = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
		}
		chunks.Put(b)
		return c.readErr != nil
	}
}
