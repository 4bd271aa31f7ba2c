package fanout

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// tlsPiece is one record of TLS.
const tlsPiece = 16 << 10

// writeTLS is writeAll for a connection that cannot go on after a write that was
// cut off. It writes a record at a time, and the deadline is put off while the
// socket below makes progress.
func (s *Socket) writeTLS(b []byte, timeout time.Duration) error {
	if s.patience == nil {
		s.patience = newPatience(s.conn, timeout)
	}
	s.patience.begin()
	defer s.patience.end()
	for len(b) > 0 {
		s.setDeadline(timeout)
		n, err := s.conn.Write(b[:min(len(b), tlsPiece)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// setDeadline gives a write the timeout. One deadline serves all writes that
// begin in its first half: to set it costs as much as a part of the encryption.
func (s *Socket) setDeadline(timeout time.Duration) {
	now := time.Since(s.engine.started)
	if s.deadline-now > timeout/2 {
		return
	}
	s.deadline = now + timeout
	s.conn.SetWriteDeadline(time.Now().Add(timeout))
}

// A patience puts the deadline of writes off while the client takes what the
// socket below TLS holds: the system wakes a writer only when a third of the
// socket's buffer is free, which may be megabytes. Most writes wait for nothing,
// so one timer looks from time to time whether one does, instead of a timer for
// each write.
type patience struct {
	conn    net.Conn
	below   syscall.RawConn // nil if nothing tells what the client has taken
	timeout time.Duration

	mu     sync.Mutex // guards the fields below
	timer  *time.Timer
	armed  bool
	writes bool
	waits  int // what the socket held at the last look; -1 before the first
}

func newPatience(conn net.Conn, timeout time.Duration) *patience {
	p := &patience{conn: conn, timeout: timeout}
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if socket, ok := t.NetConn().(syscall.Conn); ok {
			p.below, _ = socket.SyscallConn()
		}
	}
	return p
}

// begin and end are called around what may be several writes.
func (p *patience) begin() {
	if p.below == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes, p.waits = true, -1
	switch {
	case p.armed:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(p.timeout/8, p.look)
	default:
		p.timer.Reset(p.timeout / 8)
	}
	p.armed = true
}

func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes = false
}

// look is called by the timer, which goes on while a write is under way.
func (p *patience) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed = p.writes; !p.writes {
		return
	}
	n := unacknowledged(p.below)
	if n < p.waits {
		p.conn.SetWriteDeadline(time.Now().Add(p.timeout))
	}
	p.waits = n
	p.timer.Reset(p.timeout / 8)
}
