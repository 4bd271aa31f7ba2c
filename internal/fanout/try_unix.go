//go:build (linux || darwin) && !portable

package fanout

import (
	"syscall"

	"github.com/channels-go/channels/internal/rawio"
)

// tryWrite makes one non-blocking write. A writer keeps and reuses it, since a
// closure for each write would be an allocation for each write.
type tryWrite struct {
	b   []byte
	n   int
	err error
	f   func(fd uintptr)
}

func (t *tryWrite) init() {
	t.f = func(fd uintptr) { t.n, t.err = rawio.Write(fd, t.b) }
}

// write returns how much of b the socket took; rawio.ErrWouldBlock if it is full.
func (t *tryWrite) write(raw syscall.RawConn, b []byte) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := raw.Control(t.f) // Write would prepare to wait, in memory that is cold
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}
