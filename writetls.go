package channels

import (
	"net"
	"sync"
	"syscall"
	"time"
)

// tlsPiece is one record of TLS.
const tlsPiece = 16 << 10

// writeTLS is writeAll for what cannot go on after a write that was cut off. It
// gets a record at a time, and its deadline is put off while what is below makes
// progress.
func (c *conn) writeTLS(b []byte, timeout time.Duration) error {
	if c.patience == nil {
		c.patience = newPatience(c.nc, timeout)
	}
	c.patience.begin()
	defer c.patience.end()
	for len(b) > 0 {
		c.setDeadline(timeout)
		n, err := c.nc.Write(b[:min(len(b), tlsPiece)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// setDeadline gives a write the timeout. One deadline serves for those that
// begin in its first half: to set it costs as much as a part of the encryption.
func (c *conn) setDeadline(timeout time.Duration) {
	now := time.Since(c.hub.started)
	if c.deadline-now > timeout/2 {
		return
	}
	c.deadline = now + timeout
	c.nc.SetWriteDeadline(time.Now().Add(timeout))
}

// A patience puts the deadline of writes off while the client takes what the
// socket below TLS holds: the system wakes a writer only when a third of the
// socket's buffer is free, which may be megabytes. Most writes wait for nothing,
// so that one timer looks now and then whether one does, instead of one for each.
type patience struct {
	nc      net.Conn
	below   syscall.RawConn // nil where nothing tells what the client has taken
	timeout time.Duration

	mu     sync.Mutex // guards the fields below
	timer  *time.Timer
	armed  bool
	writes bool
	waits  int // what the socket held at the last look; -1 before the first
}

func newPatience(nc net.Conn, timeout time.Duration) *patience {
	p := &patience{nc: nc, timeout: timeout}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
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

// look is the timer's. It goes on while there is something to see.
func (p *patience) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed = p.writes; !p.writes {
		return
	}
	n := unacknowledged(p.below)
	if n < p.waits {
		p.nc.SetWriteDeadline(time.Now().Add(p.timeout))
	}
	p.waits = n
	p.timer.Reset(p.timeout / 8)
}
