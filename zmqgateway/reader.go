package zmqgateway

import (
	"sync"
	"time"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

// A reader is a SUB socket. One goroutine, the listener's, reads its
// subscriptions, and one writes. Both end with the connection.
type reader struct {
	gateway *Gateway
	conn    *conn
	wake    bell.Bell     // there is something to write
	gone    chan struct{} // closed by close
	wrote   chan struct{} // closed when write has returned

	topics map[string]bool // its subscriptions; guarded by readers.mu

	mu      sync.Mutex // guards the fields below
	queue   [][]byte   // shared with other readers, so never changed
	bytes   int        // waiting, with what is being written
	pong    []byte     // the newest one
	beats   bool       // it understands PING
	leaving bool       // write ends when everything is sent
	closed  bool
}

// messageCost is what a message counts for in a queue besides its own bytes.
const messageCost = 64

// servePub serves a SUB socket until it ends.
func (g *Gateway) servePub(c *conn) error {
	r := &reader{gateway: g, conn: c, topics: map[string]bool{},
		wake: bell.New(), gone: make(chan struct{}), wrote: make(chan struct{})}
	c.guard.Ping = r.answerPing
	c.guard.Busy = r.busy
	c.guard.Subscribe = r.ask
	if c.guard.Minor() >= 1 {
		r.expectBeats()
	}
	if !g.readers.add(r) {
		return nil
	}
	go r.write() // ends with the connection; this goroutine waits for it
	err := r.read()
	r.mu.Lock()
	leaving := r.leaving
	r.mu.Unlock()
	if !leaving {
		r.close()
	}
	<-r.wrote
	g.readers.remove(r)
	return err
}

// read handles the messages of ZMTP 3.0 that subscribe and cancel. Like ZeroMQ,
// it ignores other messages.
func (r *reader) read() error {
	for {
		msg, err := r.conn.RecvMsg()
		if err != nil {
			return ended(err)
		}
		b := msg.Frames[0]
		if len(b) == 0 || b[0] > zmtp.AskSubscribe {
			continue
		}
		if err := r.ask(b[1:], b[0] == zmtp.AskSubscribe); err != nil {
			return err
		}
	}
}

// ask subscribes to a topic, or cancels that.
func (r *reader) ask(topic []byte, on bool) error {
	if len(topic) > maxChannel+1 { // with its zero byte
		return nil
	}
	if !on {
		r.gateway.readers.unsubscribe(r, string(topic))
		return nil
	}
	if err := r.gateway.readers.subscribe(r, string(topic)); err != nil {
		return err
	}
	r.conn.accepted()
	return nil
}

// put queues a message, or drops it if there is no room.
func (r *reader) put(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cost := len(b) + messageCost
	if r.closed || r.leaving || r.bytes > 0 && r.bytes+cost > r.gateway.opts.QueueBytes {
		r.gateway.dropped.Add(1)
		return
	}
	r.bytes += cost
	r.queue = append(r.queue, b)
	r.wake.Ring()
}

// expectBeats begins to send PINGs. It must not be called for a reader that may
// not understand them: one of ZMTP 3.0 may take a PING for a message. The
// goroutine that reads calls it.
func (r *reader) expectBeats() {
	r.conn.guard.Silence = silentBeats * r.gateway.pace.beat
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats = true
}

// busy reports whether something waits to be sent.
func (r *reader) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes > 0
}

// answerPing has a PING answered; if there are many, the newest.
func (r *reader) answerPing(context []byte) {
	r.expectBeats()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pong = zmtp.AppendPong(nil, context)
	r.wake.Ring()
}

// write sends what is queued, and PINGs, and flushes when nothing is left.
func (r *reader) write() {
	defer close(r.wrote)
	defer r.close()
	guard, period := r.conn.guard, r.gateway.pace.beat
	beat := time.NewTicker(period)
	defer beat.Stop()
	due := false // a PING is
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && r.pong == nil && !(due && r.beats) {
			leaving := r.leaving
			r.mu.Unlock()
			if err := guard.Flush(); err != nil || leaving {
				return
			}
			select {
			case <-r.gone:
				return
			case <-r.wake:
			case <-beat.C:
				due = true
			}
			r.mu.Lock()
		}
		queue, control := r.queue, r.pong
		r.queue, r.pong = nil, nil
		select {
		case <-beat.C: // while there was always something to write
			due = true
		default:
		}
		if due && r.beats {
			control = zmtp.AppendPing(control, silentBeats*period)
		}
		due = false
		r.mu.Unlock()
		if _, err := guard.Write(control); err != nil {
			return
		}
		for i, b := range queue {
			if _, err := guard.Write(b); err != nil {
				r.gateway.dropped.Add(int64(len(queue) - i))
				return
			}
			r.mu.Lock()
			r.bytes -= len(b) + messageCost
			r.mu.Unlock()
		}
	}
}

// leave has write send what is queued, and then end.
func (r *reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
	r.wake.Ring()
}

// close ends the connection. It reports whether it was open until then.
func (r *reader) close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.closed = true
	r.gateway.dropped.Add(int64(len(r.queue)))
	r.queue = nil
	close(r.gone)
	r.conn.guard.HangUp()
	return true
}
