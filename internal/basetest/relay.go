package basetest

import (
	"net"
	"sync"
	"testing"
)

// Relay is a TCP proxy whose address leads to one server now and may lead to
// another one later. It may lose what passes.
type Relay struct {
	Addr string // where clients connect

	pass    func(to, from net.Conn, toServer bool) // until either side ends
	running sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	target   string     // nowhere if it is empty
	toServer Judge
	toClient Judge
	frozen   chan struct{} // closed to end what waits in it; nil if nothing does
	conns    map[net.Conn]bool
	taken    int // connections so far
}

// Judge decides about what has been read from a connection at once. It may be
// called concurrently. A nil Judge passes everything.
type Judge func(piece []byte) Fate

// Fate is what happens to a piece.
type Fate int

const (
	Pass    Fate = iota
	Swallow      // lose it, and all that follows it on its connection, which stays open
	Cut          // lose it, and end its connection
)

// NewRelay returns a Relay to a server's HOST:PORT. It ends with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	return NewTampering(t, target, nil)
}

// NewTampering returns a Relay that passes on only what pass does, which ends with
// either side of a connection.
func NewTampering(t testing.TB, target string, pass func(to, from net.Conn, toServer bool)) *Relay {
	t.Helper()
	ln := Listen(t)
	r := &Relay{Addr: ln.Addr().String(), pass: pass, target: target, conns: map[net.Conn]bool{}}
	if pass == nil {
		r.pass = r.forward
	}
	r.running.Go(func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.Part()
		r.running.Wait()
	})
	return r
}

// Lead changes the server for new connections. It ends those that are frozen.
func (r *Relay) Lead(target string) {
	r.change(func() {
		r.target = target
		if r.frozen != nil {
			r.cutLocked()
		}
	})
}

// ToServer makes f judge what clients send, also on connections that are open.
func (r *Relay) ToServer(f Judge) { r.change(func() { r.toServer = f }) }

// ToClient makes f judge what servers send, also on connections that are open.
func (r *Relay) ToClient(f Judge) { r.change(func() { r.toClient = f }) }

// Freeze makes all connections black holes: nothing passes or is taken any more, and
// nobody hangs up. It opens no new ones. Lead ends that, and what was sent into the
// holes never arrives.
func (r *Relay) Freeze() {
	r.change(func() {
		r.target = ""
		if r.frozen == nil {
			r.frozen = make(chan struct{})
		}
	})
}

// Part ends all connections, and opens no new ones until Lead.
func (r *Relay) Part() {
	r.change(func() {
		r.target = ""
		r.cutLocked()
	})
}

// Cut ends all connections.
func (r *Relay) Cut() { r.change(r.cutLocked) }

func (r *Relay) cutLocked() {
	for c := range r.conns {
		c.Close()
	}
	if r.frozen != nil {
		close(r.frozen)
		r.frozen = nil
	}
}

// Taken is how many connections it has passed on.
func (r *Relay) Taken() (n int) {
	r.change(func() { n = r.taken })
	return n
}

// Open is how many connections it has.
func (r *Relay) Open() (n int) {
	r.change(func() { n = len(r.conns) / 2 }) // each has two sides
	return n
}

func (r *Relay) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *Relay) serve(client net.Conn) {
	defer client.Close()
	target := ""
	r.change(func() { target = r.target })
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	for _, c := range []net.Conn{client, server} { // so that a slow reader soon slows the writer on the other side
		_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
	}
	late := false // the Relay leads elsewhere by now
	r.change(func() {
		r.conns[client], r.conns[server] = true, true
		r.taken++
		late = r.target != target
	})
	defer r.change(func() {
		delete(r.conns, client)
		delete(r.conns, server)
	})
	if late {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { // ends with server
		r.pass(client, server, false)
		client.Close()
	})
	r.pass(server, client, true)
	server.Close()
	back.Wait()
}

// forward ends with one of the connections, or if the judge wants it.
func (r *Relay) forward(to, from net.Conn, toServer bool) {
	buf := make([]byte, 64<<10)
	swallowing := false
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		var f Judge
		var frozen chan struct{}
		r.change(func() {
			f, frozen = r.toClient, r.frozen
			if toServer {
				f = r.toServer
			}
		})
		if frozen != nil {
			<-frozen
			return
		}
		if f != nil && !swallowing {
			switch f(buf[:n]) {
			case Cut:
				return
			case Swallow:
				swallowing = true
			}
		}
		if swallowing {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
