package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// raw is the limit: no library, no reading, no goroutine for a connection. It
// writes a message to one socket after the other.
type raw struct {
	every int // number of a channel's messages written at once

	mu    sync.Mutex
	rooms map[string]*rawRoom // by channel
	count int
}

type rawRoom struct {
	fds    []int
	conns  []net.Conn // used for writing with TLS
	queued []byte
	n      int
}

func newRaw(every int) *raw { return &raw{every: every, rooms: make(map[string]*rawRoom)} }

func (a *raw) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nc, in, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if r.URL.Path == "/connection/websocket" {
		recite(nc, in.Reader)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	room := a.rooms[channelOf(r)]
	if room == nil {
		room = &rawRoom{}
		a.rooms[channelOf(r)] = room
	}
	a.count++
	room.conns = append(room.conns, nc)
	if sc, ok := nc.(syscall.Conn); ok {
		rc, err := sc.SyscallConn()
		if err != nil {
			return
		}
		rc.Control(func(fd uintptr) { room.fds = append(room.fds, int(fd)) })
	}
}

// recite plays the part of a server of the client protocol, until the client leaves: it
// has two replies, which do not depend on what it is asked.
func recite(nc net.Conn, r *bufio.Reader) {
	defer nc.Close()
	for _, text := range []string{
		`{"id":1,"connect":{"client":"0-a-1","version":"1","ping":25,"pong":true}}`,
		`{"id":2,"subscribe":{}}`,
	} {
		if skipFrame(r) != nil {
			return
		}
		if _, err := nc.Write(append([]byte{0x81, byte(len(text))}, text...)); err != nil {
			return
		}
	}
	io.Copy(io.Discard, r)
}

// skipFrame reads a client's frame of up to 125 bytes.
func skipFrame(r *bufio.Reader) error {
	head, err := r.Peek(2)
	if err == nil {
		_, err = r.Discard(2 + 4 + int(head[1]&0x7f))
	}
	return err
}

func (a *raw) publish(channel string, body []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	room := a.rooms[channel]
	if room == nil {
		return nil
	}
	text := message(body)
	room.queued = append(room.queued, 0x81)
	if len(text) < 126 {
		room.queued = append(room.queued, byte(len(text)))
	} else {
		room.queued = binary.BigEndian.AppendUint16(append(room.queued, 126), uint16(len(text)))
	}
	room.queued = append(room.queued, text...)
	if room.n++; room.n%a.every != 0 {
		return nil
	}
	defer func() { room.queued = room.queued[:0] }()
	if len(room.fds) == 0 {
		for _, nc := range room.conns {
			if _, err := nc.Write(room.queued); err != nil {
				return err
			}
		}
	}
	for _, fd := range room.fds {
		if err := writeAll(fd, room.queued); err != nil {
			return err
		}
	}
	return nil
}

func (a *raw) subscribers() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != unix.EINTR {
				return err
			}
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}

// bareHTTP is the baseline for publishing over HTTP: net/http, and decoding the
// same JSON.
type bareHTTP struct{}

func (bareHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m struct {
		Header *string
		Body   json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte(`{"status":"ok"}`))
}

func (bareHTTP) publish(string, []byte) error { return errors.New("not a channel") }

func (bareHTTP) subscribers() int { return 0 }
