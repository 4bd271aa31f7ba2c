//go:build (linux || darwin) && !portable

package fanout

import "syscall"

var errWouldBlock error = syscall.EAGAIN

// tryWrite makes one non-blocking write. A writer keeps and reuses it, since a
// closure for each write would be an allocation for each write.
type tryWrite struct {
	b   []byte
	n   int
	err error
	f   func(fd uintptr)
}

func (t *tryWrite) init() {
	t.f = func(fd uintptr) {
		for {
			t.n, t.err = send(int(fd), t.b)
			if t.err != syscall.EINTR {
				return
			}
		}
	}
}

// write returns how much of b the socket took; errWouldBlock if it is full.
func (t *tryWrite) write(raw syscall.RawConn, b []byte) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := raw.Control(t.f) // Write would prepare to wait, in memory that is cold
	t.b = nil
	if err == nil {
		err = t.err
	}
	return max(t.n, 0), err
}

// canTry says that a writer may write connections that have a file descriptor.
const canTry = true
