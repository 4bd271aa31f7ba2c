//go:build linux || darwin

package channels

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

var errWouldBlock error = syscall.EAGAIN

// tryWrite makes one non-blocking write. It is kept and reused by a writer,
// since a closure for each write would be an allocation for each write.
type tryWrite struct {
	b   []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

func (t *tryWrite) init() {
	t.f = func(fd uintptr) bool {
		for {
			t.n, t.err = syscall.Write(int(fd), t.b)
			if t.err != syscall.EINTR {
				return true // never wait in here: true says that we are done
			}
		}
	}
}

// write returns how much of b the socket took; errWouldBlock where it is full.
func (t *tryWrite) write(raw syscall.RawConn, b []byte) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := raw.Write(t.f)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return max(t.n, 0), err
}

// canTry says that connections with a file descriptor can be written by a writer.
const canTry = true

// A chunk is what is read at once. Only who has bytes at hand holds one.
type chunk [4 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// tryRead makes one non-blocking read into c.early; false where nothing has
// come yet. The error, which the system tells only once, is kept.
func (c *conn) tryRead(fd uintptr) bool {
	b := chunks.Get().(*chunk)
	for {
		n, err := syscall.Read(int(fd), b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			c.early, c.chunk = b[:n], b
			c.in.bytes.Add(int64(n))
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
