package fanout

import (
	"errors"
	"os"
	"time"

	"github.com/channels-go/channels/internal/poll"
)

// A reader that waits for the next bytes has two ways. To rest costs nothing for as long
// as it lasts, but some microseconds at its end. So a client that says much should not
// have its reader rest in between: it lingers, which takes a goroutine.

// Rest lets the reader's goroutine go until the client sends something. After true, the
// caller must return without touching the connection: Readable of r, with which the
// reading goes on, may have been called already. After false, the reader has to wait by
// itself: over TLS, on systems without a poller, and once the last frame is out, when
// the client has CloseTimeout.
func (s *Socket) Rest(r poll.Reader) bool {
	if s.raw == nil || s.isOver() {
		return false
	}
	p := s.engine.polling()
	if p == nil || !p.Rest(&s.watch, s.raw, r) {
		s.Unmuffle() // a ping may have found it at rest in between
		return false
	}
	if s.isOver() { // since then, and nobody rested who could have been woken
		s.watch.Wake()
	}
	return true
}

// isOver reports whether nothing is written any more.
func (s *Socket) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeDone
}

// Linger is Read of the RawConn for a reader that has a goroutine to wait in. Hush can
// end it: then hushed is true, and there is no error. Something may have been read all
// the same.
func (s *Socket) Linger(read func(fd uintptr) bool) (hushed bool, err error) {
	s.mu.Lock()
	s.lingers = true
	s.mu.Unlock()
	err = s.raw.Read(read)
	s.mu.Lock()
	hushed = s.hushed
	s.lingers, s.hushed = false, false
	s.mu.Unlock()
	if !hushed {
		return false, err
	}
	s.conn.SetReadDeadline(time.Time{})
	if s.isOver() { // since then: wroteLast has set a deadline, which is gone
		s.conn.SetReadDeadline(time.Now().Add(CloseTimeout))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return true, err
}

// Hush ends Linger, if the reader is in it. It does nothing once the last frame is out:
// the client's time for its answer runs, and would begin again.
func (s *Socket) Hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lingers && !s.hushed && !s.writeDone {
		s.hushed = true
		s.conn.SetReadDeadline(time.Unix(1, 0)) // with the lock, or it might come after the reader has gone on
	}
}
