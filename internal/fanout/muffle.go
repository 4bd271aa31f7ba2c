package fanout

// A client answers a ping with a pong, which is of no interest before the next ping. To be
// woken for it takes longer than to send the ping and to read the pong together. So a socket
// that rests is muffled when it is pinged: a pong alone, which has six bytes, does not wake
// its reader. A seventh byte does, and so does the end of the connection. Hear looks what has
// come, for all that were pinged at a time: the hub's pingSome calls it, up to 2.3 s after
// the ping.
//
// All frames with a payload have seven bytes, and a frame behind the pong makes more of
// them. Only an empty close frame or ping waits for Hear, too, of a client that was pinged
// and has not answered yet.

const (
	lonePong  = 6            // bytes: a masked frame without a payload (RFC 6455 section 5.2)
	muffledAt = lonePong + 1 // as many bytes wake the reader of a socket that is muffled
)

// muffle muffles the socket if it rests. The drainer calls it before it writes a ping.
func (s *Socket) muffle() {
	if !s.watch.Resting() || !muffles() {
		return
	}
	s.raw.Control(wakeAtSeven)
	s.muffled.Store(true)
	if !s.watch.Resting() { // since then: the reader may have asked already, and would wait for a whole frame
		s.Unmuffle()
	}
}

// Unmuffle has each byte wake the reader again. The reader calls it before it waits or
// rests, but after it has read what was there: otherwise the system would wake it for that.
// It wakes it, too, for what has come since: that is why muffles asks for Linux 4.18.
func (s *Socket) Unmuffle() {
	if s.muffled.Load() {
		s.muffled.Store(false)
		s.raw.Control(wakeAtOne)
	}
}

func wakeAtSeven(fd uintptr) { wakeAt(fd, muffledAt) }
func wakeAtOne(fd uintptr)   { wakeAt(fd, 1) }

// Hear has the reader look what has come while the socket was muffled: Readable is called
// before Hear returns.
func (o *Outbox) Hear() {
	if s := o.socket.Load(); s != nil && s.muffled.Load() {
		s.watch.Wake()
	}
}
