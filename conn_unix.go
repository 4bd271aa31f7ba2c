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
	w.early, w.chunk, err = w.tryRead(raw, wait, wait && w.talks)
	return len(w.early) > 0, err
}

// tryRead is try: it returns what has come, and the chunk that this is a part of. With
// linger, the reader can be hushed.
func (c *conn) tryRead(raw syscall.RawConn, wait, linger bool) (came []byte, of *chunk, err error) {
	r := readers.Get().(*reader)
	r.wait = wait
	if linger {
		_, err = c.Linger(r.once)
	} else {
		err = raw.Read(r.once)
	}
	if came, of = r.came, r.chunk; err == nil {
		err = r.err
	}
	r.came, r.chunk, r.err = nil, nil, nil
	readers.Put(r)
	if len(came) > 0 {
		c.heard(len(came))
	}
	return came, of, err
}

// A reader makes one read. It is kept, since a function for each would be allocated.
type reader struct {
	once  func(fd uintptr) bool // readOnce
	wait  bool
	came  []byte
	chunk *chunk
	err   error
}

var readers = sync.Pool{New: func() any {
	r := &reader{}
	r.once = r.readOnce
	return r
}}

// readOnce makes one non-blocking read. It returns false to be called again when
// something has come.
func (r *reader) readOnce(fd uintptr) bool {
	b := chunks.Get().(*chunk)
	for {
		n, err := syscall.Read(int(fd), b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			r.came, r.chunk = b[:n], b
			return true
		case err == nil:
			r.err = io.EOF
		case err != syscall.EAGAIN:
			r.err = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
		}
		chunks.Put(b)
		return r.err != nil || !r.wait
	}
}
