//go:build (linux || darwin) && !portable

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

// try reads once. If nothing has come, it waits if wait is set, and otherwise returns
// false. It also does for a talker that was hushed.
func (w *wire) try(raw syscall.RawConn, wait bool) (came bool, err error) {
	w.wait = wait
	if wait && w.talks {
		_, err = w.Linger(w.tryRead)
	} else {
		err = raw.Read(w.tryRead)
	}
	if err == nil {
		err = w.readErr
	}
	return len(w.early) > 0, err
}

// readOnce makes one non-blocking read. It returns false to be called again when
// something has come.
func (w *wire) readOnce(fd uintptr) bool {
	b := chunks.Get().(*chunk)
	for {
		n, err := syscall.Read(int(fd), b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			w.early, w.chunk = b[:n], b
			w.heard(n)
			return true
		case err == nil:
			w.readErr = io.EOF
		case err != syscall.EAGAIN:
			w.readErr = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
		}
		chunks.Put(b)
		return w.readErr != nil || !w.wait
	}
}
