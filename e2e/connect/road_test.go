package connect

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/channels-go/channels/internal/basetest"
)

// A road is the proxy between the clients and the servers. It can stand still, and
// cut connections that are idle.
type road struct {
	*basetest.Relay

	idle   time.Duration // it cuts a connection on which the server is silent so long; 0: never
	pieces atomic.Int64  // what has come from servers

	mu   sync.Mutex             // guards the field below
	held map[bool]chan struct{} // by whether it is to the server; closed when that may pass again
}

func newRoad(t *testing.T, idle time.Duration) *road {
	r := &road{idle: idle, held: map[bool]chan struct{}{}}
	r.Relay = basetest.NewTampering(t, "", r.pass)
	t.Cleanup(r.release) // before the Relay waits for what is held
	return r
}

// hold lets nothing pass to clients any more, nor to servers if both is true. Nobody
// hangs up, and nothing is lost: what is sent waits at its sender.
func (r *road) hold(both bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[false] = make(chan struct{})
	if both {
		r.held[true] = make(chan struct{})
	}
}

// release ends hold.
func (r *road) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.held {
		close(c)
	}
	clear(r.held)
}

// pass passes on one direction of a connection. It ends with either side.
func (r *road) pass(to, from net.Conn, toServer bool) {
	buf := make([]byte, 16<<10)
	for {
		if r.idle > 0 && !toServer {
			from.SetReadDeadline(time.Now().Add(r.idle))
		}
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		held := r.held[toServer]
		r.mu.Unlock()
		if held != nil {
			<-held
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if !toServer {
			r.pieces.Add(1)
		}
	}
}
