package channels

import (
	"io"
	"sync"
)

// inboundBuffer holds one body or message while it is read and parsed.
type inboundBuffer struct {
	b     []byte
	claim claim
	came  int // what the client has sent of it, where it may be compressed
	extra int // what else is held for it
}

var inbound = sync.Pool{New: func() any { return &inboundBuffer{b: make([]byte, 0, 1024)} }}

// newInbound returns an empty buffer with a part of the hub's budget. done must
// follow.
func newInbound(c claim) *inboundBuffer {
	i := inbound.Get().(*inboundBuffer)
	if cap(i.b) > writeBytes {
		i.b = make([]byte, 0, 1024) // a rare long message is not to be kept
	}
	i.b, i.claim, i.came, i.extra = i.b[:0], c, 0, 0
	return i
}

func (i *inboundBuffer) done() {
	i.claim = claim{} // a pool is not to keep a connection
	inbound.Put(i)
}

// grow makes room for more: for twice as much, up to one byte more than a bound
// that is not to be reached.
func (i *inboundBuffer) grow(bound int) {
	if n := len(i.b); n == cap(i.b) {
		i.b = append(make([]byte, 0, max(n+1, min(2*n, bound+1))), i.b...)
	}
}

// read reads once.
func (i *inboundBuffer) read(r io.Reader) error {
	n, err := r.Read(i.b[len(i.b):cap(i.b)])
	i.b = i.b[:len(i.b)+n]
	return err
}

// wait says what is held, before who reads waits for more.
func (i *inboundBuffer) wait() error { return i.claim.hold(cap(i.b) + i.extra) }
