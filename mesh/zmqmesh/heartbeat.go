package zmqmesh

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/go-zeromq/zmq4"
)

// An echo is a question that waits for its answer, which proves that the
// channels are active at the other side.
type echo struct {
	number   uint64
	at       time.Time
	channels []string // those that were asked for by their names
}

const (
	beatPeriod = time.Second // between the heartbeats of a link
	maxWaiting = 64          // echoes of one link
)

// write sends what is wanted. Each time it also asks for an echo, which is a
// heartbeat too.
func (l *link) write() {
	beat := time.NewTicker(beatPeriod)
	defer beat.Stop()
	for due := true; ; {
		if err := l.ask(due); err != nil {
			l.close(err)
			return
		}
		select {
		case <-l.gone:
			return
		case <-l.wake:
			due = false
		case <-beat.C:
			due = true
		}
	}
}

// ask sends what is wanted, and asks for an echo. If too many echoes are
// outstanding, because packets take long to come, it only sends a sign of life,
// if one is due.
func (l *link) ask(due bool) error {
	l.mu.Lock()
	if len(l.waiting) >= maxWaiting {
		l.mu.Unlock()
		if due {
			return l.beat()
		}
		return nil // write asks again after an answer, or at the next beat
	}
	pending := l.pending
	l.pending = nil
	l.asked++
	e := echo{number: l.asked, at: time.Now()}
	if e.number > 1 { // the first echo is for all channels
		for t, subscribe := range pending {
			if subscribe && !t.prefix {
				e.channels = append(e.channels, t.name)
			}
		}
	}
	l.waiting = append(l.waiting, e)
	l.mu.Unlock()

	var buf []byte
	for t, subscribe := range pending {
		buf = append(buf[:0], askLeave)
		if subscribe {
			buf[0] = askSubscribe
		}
		buf = t.append(buf)
		if err := l.send(buf); err != nil {
			return err
		}
	}
	if err := l.send(binary.BigEndian.AppendUint64([]byte{askEcho}, e.number)); err != nil {
		return err
	}
	return l.guard.Flush()
}

// send buffers a message. Only the goroutine that writes calls it.
func (l *link) send(b []byte) error {
	l.frames[0] = l.out.close(b)
	return l.conn.SendMsg(zmq4.Msg{Frames: l.frames[:]})
}

// beat says again whether all channels are wanted, which changes nothing.
func (l *link) beat() error {
	b := []byte{askLeave, 0}
	if l.mesh.begins.Has("") {
		b[0] = askSubscribe
	}
	if err := l.send(b); err != nil {
		return err
	}
	return l.guard.Flush()
}

// answer handles an echo. Echoes come in the order in which they were asked for.
func (l *link) answer(n uint64) error {
	l.mu.Lock()
	if len(l.waiting) == 0 || l.waiting[0].number != n {
		l.mu.Unlock()
		return fmt.Errorf("zmqmesh: the replica sent the echo %d, which was not asked for", n)
	}
	e := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.rtt = time.Since(e.at)
	first := l.up.IsZero()
	if first {
		l.up = time.Now()
	}
	if len(l.pending) > 0 {
		l.wake.Ring()
	}
	l.mu.Unlock()
	if first {
		l.mesh.log.Info("mesh: link up", "peer", l.id, "address", l.address)
		l.mesh.inbox.Lost("", l.id)
	}
	for _, ch := range e.channels {
		l.mesh.inbox.Lost(ch, l.id)
	}
	return nil
}
