package zmqmesh_test

import (
	"net"
	"sync"
	"testing"
)

// A proxy is a TCP proxy to one address. Its connections can be cut, or be made a
// black hole: nothing passes, and nobody hangs up.
type proxy struct {
	ln   net.Listener
	to   string
	pass func(to, from net.Conn, upwards bool) // until either side ends; upwards is towards the address

	mu    sync.Mutex // guards the fields below
	hole  bool       // of all connections that are open
	deny  bool       // new connections are closed at once
	conns map[net.Conn]net.Conn
	wake  *sync.Cond // hole has changed
	ended bool
	taken int // connections so far

	running sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{to: to}
	p.pass = p.passAll
	p.start(t)
	return p
}

func (p *proxy) start(t *testing.T) {
	t.Helper()
	p.ln, p.conns, p.wake = listen(t), map[net.Conn]net.Conn{}, sync.NewCond(&p.mu)
	p.running.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.ln.Close()
		p.cut()
		p.running.Wait()
	})
}

func (p *proxy) address() string { return "tcp://" + p.ln.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		deny := p.deny || p.ended
		p.mu.Unlock()
		out, err := net.Dial("tcp", p.to)
		if deny || err != nil {
			in.Close()
			if err == nil {
				out.Close()
			}
			continue
		}
		for _, c := range []net.Conn{in, out} { // so that a slow reader behind the proxy soon slows the writer before it
			_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
			_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
		}
		p.mu.Lock()
		p.taken++
		p.conns[in] = out
		if p.ended {
			in.Close()
			out.Close()
		}
		p.mu.Unlock()
		p.running.Go(func() { p.pipe(out, in, true) })
		p.running.Go(func() { p.pipe(in, out, false) })
	}
}

func (p *proxy) pipe(to, from net.Conn, upwards bool) {
	defer to.Close()
	defer from.Close()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, to)
		delete(p.conns, from)
	}()
	p.pass(to, from, upwards)
}

func (p *proxy) passAll(to, from net.Conn, _ bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.hole && !p.ended {
			p.wake.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for in, out := range p.conns {
		in.Close()
		out.Close()
	}
	clear(p.conns)
	p.hole = false
	p.wake.Broadcast()
}

// set changes what happens to connections. What was black-holed never arrives.
func (p *proxy) set(hole, deny bool) {
	p.mu.Lock()
	was := p.hole
	p.hole, p.deny = hole || was, deny
	p.mu.Unlock()
	if was && !hole {
		p.cut()
	}
}

// count is how many connections it has passed on.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// open is how many connections it has.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}
