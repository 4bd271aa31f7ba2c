package zmtp

import "io"

// Message returns the next message, in place of the library's RecvMsg. It is for Rules
// without an Admission that allow a message only one frame. The caller may change what it
// gets, until the next call: a message that fits into the buffer stays where it was read,
// which spares an allocation and a copy.
func (g *Guard) Message() ([]byte, error) {
	g.r.Discard(g.lent) // cannot fail: so much is buffered
	g.lent = 0
	if err := g.next(); err != nil {
		return nil, err
	}
	head := 2
	if b, _ := g.r.Peek(1); b[0]&flagLong != 0 { // next has seen it
		head = MaxHeader
	}
	if size := g.pass; size <= g.r.Size() {
		b, err := g.r.Peek(size)
		if err != nil {
			return nil, g.cut(err)
		}
		g.pass, g.lent = 0, size
		return b[head:], nil
	}
	b := make([]byte, g.pass)
	if _, err := io.ReadFull(g.r, b); err != nil {
		return nil, err
	}
	g.pass = 0
	return b[head:], nil
}
