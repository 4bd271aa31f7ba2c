package redistest

import (
	"net"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Relay is a TCP proxy whose address leads to one server now and may lead to
// another one later. It may lose what passes.
type Relay struct {
	Addr string // where clients connect

	t       testing.TB
	running sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	target   string     // nowhere if it is empty
	toServer Judge
	toClient Judge
	conns    map[net.Conn]bool
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

// NewRelay returns a Relay to s. It ends with the test.
func NewRelay(t testing.TB, s *Server) *Relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &Relay{t: t, Addr: ln.Addr().String(), target: s.Addr, conns: map[net.Conn]bool{}}
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

// Client returns a client of the relay. The test closes it at its end.
func (r *Relay) Client(change ...func(*redis.Options)) *redis.Client {
	return newClient(r.t, r.Addr, change)
}

// Lead changes the server for new connections.
func (r *Relay) Lead(s *Server) { r.change(func() { r.target = s.Addr }) }

// ToServer makes f judge what clients send, also on connections that are open.
func (r *Relay) ToServer(f Judge) { r.change(func() { r.toServer = f }) }

// ToClient makes f judge what servers send, also on connections that are open.
func (r *Relay) ToClient(f Judge) { r.change(func() { r.toClient = f }) }

// Part ends all connections, and opens no new ones until Lead.
func (r *Relay) Part() {
	r.change(func() { r.target = "" })
	r.Cut()
}

// Cut ends all connections.
func (r *Relay) Cut() {
	r.change(func() {
		for c := range r.conns {
			c.Close()
		}
	})
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
	late := false // the Relay leads elsewhere by now
	r.change(func() {
		r.conns[client], r.conns[server] = true, true
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
		r.forward(client, server, &r.toClient)
		client.Close()
	})
	r.forward(server, client, &r.toServer)
	server.Close()
	back.Wait()
}

// forward ends with one of the connections, or if the judge wants it.
func (r *Relay) forward(to, from net.Conn, judge *Judge) {
	buf := make([]byte, 64<<10)
	swallowing := false
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		var f Judge
		r.change(func() { f = *judge })
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
