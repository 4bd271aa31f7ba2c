package channels

import (
	"io"
	"sync"
)

// inboundBuffer holds one body or message while it is read and parsed.
type inboundBuffer struct {
	b     []byte
	claim claim
	came  int // how many bytes the client has sent for it, compressed or not
	extra int // bytes that are held for it besides b
}

// keptBytes is the longest buffer that is kept for the next message.
const keptBytes = 64 << 10

var inbound = sync.Pool{New: func() any { return &inboundBuffer{b: make([]byte, 0, 1024)} }}

// newInbound returns an empty buffer that counts towards the hub's budget. Call
// done afterwards.
func newInbound(c claim) *inboundBuffer {
	i := inbound.Get().(*inboundBuffer)
	if cap(i.b) > keptBytes {
		i.b = make([]byte, 0, 1024) // do not keep the buffer of a rare long message
	}
	i.b, i.claim, i.came, i.extra = i.b[:0], c, 0, 0
	return i
}

func (i *inboundBuffer) done() {
	i.claim = claim{} // the pool must not keep a connection
	inbound.Put(i)
}

// grow makes room for more if there is none: it doubles the buffer, up to one
// byte more than bound, so that the reader sees if there is too much.
func (i *inboundBuffer) grow(bound int) {
	if n := len(i.b); n == cap(i.b) {
		i.b = append(make([]byte, 0, max(n+1, min(2*n, bound+1))), i.b...)
	}
}

// read calls r.Read once.
func (i *inboundBuffer) read(r io.Reader) error {
	n, err := r.Read(i.b[len(i.b):cap(i.b)])
	i.b = i.b[:len(i.b)+n]
	return err
}

// wait tells the budget what is held. Call it before each wait for more.
func (i *inboundBuffer) wait() error { return i.claim.hold(cap(i.b) + i.extra) }
