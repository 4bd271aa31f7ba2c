package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"log"
	"net"
	"strings"
	"sync"
)

// relay is the limit for the latency between replicas: each message is written to a bare
// TCP connection at once, and what comes from it to the clients' sockets.
type relay struct {
	*raw

	mu    sync.Mutex
	to    []net.Conn
	frame []byte
}

// newRelay takes the arguments of openMesh. The first replica publishes.
func newRelay(args []string) (app, error) {
	a := &relay{raw: newRaw(1)}
	host := func(address string) string { return strings.TrimPrefix(address, "tcp://") }
	if args[1] == "a" {
		l, err := net.Listen("tcp", host(args[2]))
		if err != nil {
			return nil, err
		}
		go a.accept(l) // ends with the process
		return a, nil
	}
	nc, err := net.Dial("tcp", host(args[3]))
	if err != nil {
		return nil, err
	}
	go a.read(bufio.NewReader(nc)) // ends with the first replica
	return a, nil
}

func (a *relay) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		a.mu.Lock()
		a.to = append(a.to, nc)
		a.mu.Unlock()
	}
}

// publish sends the channel and the body, each behind its length.
func (a *relay) publish(channel string, body []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frame = append(append(a.frame[:0], byte(len(channel))), channel...)
	a.frame = append(binary.BigEndian.AppendUint16(a.frame, uint16(len(body))), body...)
	for _, nc := range a.to {
		if _, err := nc.Write(a.frame); err != nil {
			return err
		}
	}
	return nil
}

func (a *relay) read(r *bufio.Reader) {
	for {
		n, err := r.ReadByte()
		if err != nil {
			return
		}
		head := make([]byte, int(n)+2)
		if _, err := io.ReadFull(r, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint16(head[n:]))
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		if err := a.raw.publish(string(head[:n]), body); err != nil {
			log.Fatal(err)
		}
	}
}
