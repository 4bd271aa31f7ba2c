//go:build linux || darwin

package channels

import "syscall"

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
