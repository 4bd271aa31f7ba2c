//go:build !windows

package redismesh_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A relay is a TCP proxy whose address leads to one server now and may lead to
// another one later. It may swallow what clients send.
type relay struct {
	t        *testing.T
	listener net.Listener
	running  sync.WaitGroup
	holes    atomic.Int64 // how often something was swallowed

	mu      sync.Mutex // guards the fields below
	target  string
	swallow string // swallow what a connection sends from a piece with this text on; "": nothing
	conns   map[net.Conn]bool
	closed  bool
}

func newRelay(t *testing.T, s *redistest.Server) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{t: t, listener: ln, target: s.Addr, conns: map[net.Conn]bool{}}
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
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) client(change ...func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: r.listener.Addr().String()}
	for _, f := range change {
		f(o)
	}
	c := redis.NewClient(o)
	r.t.Cleanup(func() { c.Close() })
	return c
}

// lead changes the server for new connections.
func (r *relay) lead(s *redistest.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = s.Addr
}

// hole swallows a piece that contains the text, and everything that its
// connection sends after it. The connection stays open.
func (r *relay) hole(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.swallow = text
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) serve(c net.Conn) {
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	defer c.Close()
	s, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer s.Close()
	if !r.keep(c) || !r.keep(s) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { // ends with s
		io.Copy(c, s)
		c.Close()
	})
	r.forward(s, c)
	s.Close()
	back.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	delete(r.conns, s)
}

func (r *relay) forward(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	gone := false
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		swallow := r.swallow
		r.mu.Unlock()
		if !gone && swallow != "" && bytes.Contains(bytes.ToLower(buf[:n]), []byte(strings.ToLower(swallow))) {
			gone = true
			r.holes.Add(1)
		}
		if !gone {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
