package fanout

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/channels-go/channels/internal/poll"
	"github.com/channels-go/channels/internal/rawio"
	"github.com/channels-go/channels/internal/steady"
)

// A Socket is the writing half of a WebSocket's connection: an Outbox and how it
// is drained. One goroutine at a time reads the connection. It calls Open and Start,
// may call Rest, and at its end Finish, which closes the connection once the last frame
// is written. The other methods may be called concurrently.
type Socket struct {
	raw    syscall.RawConn // nil if only a goroutine may write: TLS
	conn   net.Conn        // nil until Open; set with Outbox.mu held
	writer *writer

	deadline time.Duration // of writes over TLS, since Engine.started; the drainer's own

	// In the hub's connections it begins a cache line, because it stands here
	// (TestOutboxBeginsACacheLine in package channels).
	Outbox

	patience *patience // over TLS, from the first write on; the drainer's own

	watch   poll.Watch  // of the reader, while it rests (rest.go)
	muffled atomic.Bool // see muffle.go

	// Guarded by Outbox.mu. The connection is closed when nothing more is read
	// and nothing more is to be written.
	readDone, writeDone bool
	// lingers is set while the reader is in Linger, and hushed if it was told to leave.
	lingers, hushed bool
}

var noContext = context.Background()

// Init prepares a socket. What is sent before Start waits.
func (s *Socket) Init(e *Engine) {
	s.Outbox.Init(e, s, WebSocket)
	s.scheduled = true
}

// Open takes over a connection, and writes the answer to its handshake. After an
// error the connection is closed.
func (s *Socket) Open(conn net.Conn, answer []byte) (err error) {
	s.raw, err = rawio.Conn(conn) // here and not at each write, where it would allocate
	if err == nil {
		err = s.writeAnswer(conn, answer)
	}
	if err != nil {
		conn.Close()
		return err
	}
	lane := s.engine.turn.Add(1) % uint32(len(s.engine.writers))
	s.writer = s.engine.writers[lane]
	s.mu.Lock()
	s.conn = conn
	if s.raw != nil {
		s.lane = uint16(lane)
		s.socket.Store(s)
	}
	s.mu.Unlock()
	return nil
}

// writeAnswer mostly writes at once, without a deadline, which costs more than
// the write's own bookkeeping.
func (s *Socket) writeAnswer(conn net.Conn, b []byte) error {
	if s.raw != nil {
		d := drainers.Get().(*drainer)
		n, err := d.try.write(s.raw, b)
		drainers.Put(d)
		if err != nil && !errors.Is(err, rawio.ErrWouldBlock) {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
	conn.SetWriteDeadline(time.Now().Add(s.engine.config.WriteTimeout))
	_, err := conn.Write(b)
	conn.SetWriteDeadline(time.Time{})
	return err
}

// Conn returns the connection, or nil before Open. It is for the reader.
func (s *Socket) Conn() net.Conn { return s.conn }

// RawConn returns the connection's file descriptor, or nil if the connection
// has none of its own. It is for the reader.
func (s *Socket) RawConn() syscall.RawConn { return s.raw }

// Start lets the socket write what was sent since Init, or closes it if it was
// killed since.
func (s *Socket) Start() {
	s.mu.Lock()
	killed := s.state == closed
	s.mu.Unlock()
	if killed {
		cut(s.conn)
	}
	s.Wake()
}

// Wake gets a drainer to work: the socket's writer, or a goroutine.
func (s *Socket) Wake() {
	if s.raw != nil {
		s.writer.add(s)
		return
	}
	s.writeElsewhere(nil, false)
}

// Write is Flush for the reader, which writes by itself what fits into the socket's
// buffer: to wake a writer for each answer costs more than the write.
func (s *Socket) Write() {
	if s.raw == nil {
		s.Flush()
		return
	}
	s.mu.Lock()
	mine := !s.scheduled && s.waitsLocked()
	s.scheduled = s.scheduled || mine
	s.mu.Unlock()
	if !mine {
		return
	}
	d := drainers.Get().(*drainer)
	if !d.drain(s) {
		s.writer.add(s)
	}
	d.flush(s.engine, s.queued)
	drainers.Put(d)
}

// writeElsewhere starts a goroutine that may wait. It is one of the Engine's
// Conns, and ends once nothing waits or the socket is cut.
func (s *Socket) writeElsewhere(rest []byte, last bool) {
	if !s.engine.Conns.Run(func() { s.writeRest(rest, last) }) {
		s.Kill(s.engine.config.Stopped)
	}
}

// writeRest writes what a writer could not, and then all that is queued. It is
// the drainer meanwhile, so nothing gets into the middle of a frame.
func (s *Socket) writeRest(b []byte, last bool) {
	var frames []*Frame
	var buf []byte
	for {
		if len(b) > 0 {
			if err := s.writeAll(b); err != nil {
				s.Kill(err)
				return
			}
		}
		if last {
			s.wroteLast()
			return
		}
		frames = s.Take(frames[:0])
		if len(frames) == 0 {
			return
		}
		b, last = s.Join(&buf, frames)
		clear(frames)
	}
}

// writeAll writes b, however long that takes, as long as the client takes some of
// it within each WriteTimeout.
func (s *Socket) writeAll(b []byte) error {
	timeout := s.engine.config.WriteTimeout
	if _, socket := s.conn.(syscall.Conn); socket {
		_, err := steady.Write(s.conn, b, timeout)
		return err
	}
	return s.writeTLS(b, timeout)
}

// wroteLast notes that the close frame is out: the client has CloseTimeout to
// answer.
func (s *Socket) wroteLast() {
	s.mu.Lock()
	s.abandonLocked(nil)
	s.writeDone = true
	done := s.readDone
	s.mu.Unlock()
	if done {
		s.conn.Close()
		return
	}
	s.conn.SetReadDeadline(time.Now().Add(CloseTimeout))
	s.watch.Wake() // so that somebody waits until then
}

// Kill cuts a connection that cannot be written or read any more. That ends the
// reading, too.
func (s *Socket) Kill(err error) {
	s.mu.Lock()
	s.abandonLocked(err)
	s.writeDone = true
	conn := s.conn
	s.mu.Unlock()
	if conn != nil { // otherwise Start cuts it
		cut(conn)
		s.watch.Wake()
	}
}

// cut closes a connection at once. For TLS it skips the alert, for which Close
// would wait if the client has stopped reading. Without SetLinger(0), the system
// would keep what the client does not take, and try for minutes.
func cut(conn net.Conn) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		t.SetLinger(0)
	}
	conn.Close()
}

// AwaitClose discards what the client still sends until it has closed the
// connection. The close frame is on its way then: to close the connection now
// would have the system throw away what is unread, and the close frame with it.
func (s *Socket) AwaitClose() {
	s.conn.SetReadDeadline(time.Now().Add(s.rest))
	if s.isOver() { // wroteLast's deadline came before the one above, which has replaced it
		s.conn.SetReadDeadline(time.Now().Add(CloseTimeout))
	}
	io.Copy(io.Discard, s.conn)
}

// Finish says that nothing more is read. With abandon, nothing more is written
// either, because of err; otherwise the connection stays until the last frame is
// out.
func (s *Socket) Finish(err error, abandon bool) {
	s.watch.Remove()
	s.mu.Lock()
	s.readDone = true
	left := abandon && err == io.EOF && !s.scheduled // by the client, and nobody writes
	if abandon {
		s.abandonLocked(err)
		s.writeDone = true
	}
	done := s.writeDone
	s.mu.Unlock()
	if left {
		s.hangUp()
	} else if done {
		s.conn.Close()
	}
}

// hangUp closes a connection that its client has left without a close frame. If all that
// was written has arrived, it resets the connection: that takes one packet and not two
// with their answers, a tenth of what a client costs that comes and goes (bench's row
// connect). Linux alone says what has arrived. A client that has closed only its own
// direction can still read that, unless its system throws it away with a reset (RFC 9112
// section 9.6): Linux does not. Browsers never close one direction.
func (s *Socket) hangUp() {
	if c, ok := s.conn.(*net.TCPConn); ok && s.raw != nil && unacknowledged(s.raw) == 0 {
		c.SetLinger(0)
	}
	s.conn.Close()
}
