package fanout

// A client answers a ping with a pong, which is of no interest before the next ping. To be
// woken for it takes longer than to send the ping and to read the pong together. So a socket
// that rests is muffled when it is pinged: a pong alone, which has six bytes, does not wake
// its reader. What does is a seventh byte, of any frame that says something or of one behind
// the pong, and the end of the connection. A little later Hear looks what has come, for all
// that were pinged at a time.
//
// An empty close frame, or an empty ping, of a client that was pinged and has not answered
// yet is as short, and waits for Hear too.

const (
	lonePong  = 6            // bytes: a masked frame without a payload (RFC 6455 section 5.2)
	muffledAt = lonePong + 1 // as many bytes wake the reader of a socket that is muffled
)

// muffles reports whether a socket is to be muffled with what a drainer writes now.
func (s *Socket) muffles(b []byte) bool { return b[0] == opPing && s.watch.Resting() }

// wasMuffled follows when that is done.
func (s *Socket) wasMuffled() {
	s.muffled.Store(true)
	if !s.watch.Resting() { // since then: the reader may have asked already, and would wait for a whole frame
		s.Unmuffle()
	}
}

// Unmuffle has each byte wake the reader again. The reader calls it before it reads.
func (s *Socket) Unmuffle() {
	if s.muffled.Load() {
		s.muffled.Store(false)
		s.raw.Control(wakeAtOne)
	}
}

func wakeAtOne(fd uintptr) { wakeAt(fd, 1) }

// Hear has the reader look what has come while the socket was muffled: Readable is called
// before Hear returns.
func (o *Outbox) Hear() {
	if s := o.socket.Load(); s != nil && s.muffled.Load() {
		s.watch.Wake()
	}
}
