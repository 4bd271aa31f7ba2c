package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A load is many subscribers of one server.
type load struct {
	subs      []*sub
	delivered atomic.Int64 // messages, by all
	failed    atomic.Pointer[error]
	wg        sync.WaitGroup
}

// A sub is a WebSocket client that counts the messages it receives.
type sub struct {
	load   *load
	nc     net.Conn
	many   bool   // a frame may have several messages, or none
	early  []byte // received together with the handshake's answer
	waited []int64
}

type dialOptions struct {
	path    string
	from    string // the address of the client; "" leaves it to the system
	tls     bool
	deflate bool

	// Of a connection that speaks the client protocol; nil for one that does not.
	subscribes []string // the commands
	missed     int      // the messages that they recover
}

// dial opens one connection, with the handshake of RFC 6455.
func dial(addr string, o dialOptions) (nc net.Conn, early []byte, err error) {
	nc, err = dialFrom(o.from, addr)
	if err != nil {
		return nil, nil, err
	}
	if o.tls {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) // our own server, on loopback
	}
	extension := ""
	if o.deflate {
		extension = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
	}
	_, err = fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", o.path, extension)
	if err == nil {
		r := bufio.NewReaderSize(nc, 1024)
		var resp *http.Response
		resp, err = http.ReadResponse(r, nil)
		switch {
		case err != nil:
		case resp.StatusCode != 101:
			err = fmt.Errorf("handshake: %s", resp.Status)
		case o.deflate && resp.Header.Get("Sec-WebSocket-Extensions") == "":
			err = fmt.Errorf("handshake: no compression")
		case o.subscribes != nil:
			err = introduce(nc, r, o)
		}
		if err == nil {
			early, _ = r.Peek(r.Buffered()) // does not block: the bytes are buffered
			return nc, bytes.Clone(early), nil
		}
	}
	nc.Close()
	return nil, nil, err
}

// dialFrom opens a TCP connection from an address.
func dialFrom(from, addr string) (net.Conn, error) {
	if from == "" {
		return net.Dial("tcp", addr)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	d.Control = func(_, _ string, c syscall.RawConn) (err error) {
		// The port is chosen while connecting: those of servers that have ended don't count.
		err2 := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		})
		return errors.Join(err, err2)
	}
	return d.Dial("tcp", addr)
}

// subscribe opens n connections. The i-th has the options of(i).
func subscribe(addr string, n int, of func(i int) dialOptions) (*load, error) {
	return subscribeAt(addr, n, 64, of)
}

// subscribeAt is subscribe with a number of connections that are opened at a time.
func subscribeAt(addr string, n, atOnce int, of func(i int) dialOptions) (*load, error) {
	l := &load{subs: make([]*sub, n)}
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	next := atomic.Int64{}
	for range min(n, atOnce) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || first.Load() != nil {
					return
				}
				nc, early, err := dial(addr, of(i))
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				l.subs[i] = &sub{load: l, nc: nc, many: of(i).subscribes != nil, early: early}
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		l.close()
		return nil, *err
	}
	for _, s := range l.subs {
		l.wg.Go(s.run)
	}
	return l, nil
}

func (l *load) close() {
	for _, s := range l.subs {
		if s != nil {
			s.nc.Close()
		}
	}
	l.wg.Wait()
}

// await waits until n messages have arrived.
func (l *load) await(n int64) error {
	end := time.Now().Add(time.Minute)
	for l.delivered.Load() < n {
		if err := l.failed.Load(); err != nil {
			return *err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d messages arrived", l.delivered.Load(), n)
		}
		time.Sleep(time.Millisecond)
	}
	if got := l.delivered.Load(); got > n {
		return fmt.Errorf("%d messages arrived, %d were sent", got, n)
	}
	return nil
}

// tell keeps a counter at the number of messages that all their receivers have got, of
// which there are so many, until stop.
func (l *load) tell(taken *atomic.Int64, receivers int64) (stop func()) {
	done := make(chan struct{})
	go func() { // ends with stop
		t := time.NewTicker(200 * time.Microsecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				taken.Store(l.delivered.Load() / receivers)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// waited returns the p-quantile of the time that messages took.
func (l *load) waited(p float64) time.Duration {
	var all []int64
	for _, s := range l.subs {
		all = append(all, s.waited...)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return time.Duration(all[min(len(all)-1, int(float64(len(all))*p))])
}

func (s *sub) run() {
	err := s.read()
	if err != nil && s.load.failed.Load() == nil {
		s.load.failed.CompareAndSwap(nil, &err)
	}
}

const maxRead = 64 << 10

// read counts messages until the connection ends.
func (s *sub) read() error {
	buf := append(make([]byte, 0, 2048), s.early...)
	s.early = nil
	full := false
	for {
		used, err := s.frames(buf)
		if err != nil {
			return err
		}
		buf = buf[:copy(buf, buf[used:])]
		if len(buf) == cap(buf) || full && cap(buf) < maxRead {
			buf = slices.Grow(buf, cap(buf)) // more data waits: the client must cost little compared with the server
		}
		n, err := s.nc.Read(buf[len(buf):cap(buf)])
		full = len(buf)+n == cap(buf)
		if n == 0 {
			if err == io.EOF {
				return fmt.Errorf("the server closed a connection")
			}
			return err
		}
		buf = buf[:len(buf)+n]
	}
}

var stamp = []byte(`"t":`)

// frames handles the complete frames at the beginning of b (RFC 6455 section
// 5.2).
func (s *sub) frames(b []byte) (used int, err error) {
	count := int64(0)
	for {
		f := b[used:]
		if len(f) < 2 {
			break
		}
		head, n := 2, int(f[1])
		switch {
		case n == 126:
			if len(f) < 4 {
				n = 1 << 30
				break
			}
			head, n = 4, int(binary.BigEndian.Uint16(f[2:]))
		case n > 126:
			return used, fmt.Errorf("a frame of an unexpected length")
		}
		if len(f) < head+n {
			break
		}
		payload := f[head : head+n]
		used += head + n
		switch f[0] & 0x0f {
		case 1:
			stamps := 0
			if f[0]&0x40 == 0 {
				stamps = s.stamps(payload)
			} else if s.many {
				if payload, err = inflated(payload); err != nil {
					return used, err
				}
				stamps = s.stamps(payload)
			}
			switch {
			case !s.many:
				count++
			case stamps > 0:
				count += int64(stamps)
			case bytes.HasPrefix(payload, []byte("{}")): // a ping
				if _, err := s.nc.Write(masked(0x81, "{}")); err != nil {
					return used, err
				}
			default:
				return used, fmt.Errorf("an unexpected reply: %s", payload)
			}
		case 8:
			return used, fmt.Errorf("closed by the server: % x %s", payload[:min(2, n)], payload[min(2, n):])
		case 9:
			if _, err := s.nc.Write(masked(0x8a, string(payload))); err != nil {
				return used, err
			}
		}
	}
	s.load.delivered.Add(count)
	return used, nil
}

// stamps returns how many messages say when they were published, and notes how long
// they took. Those of a flood say 0: they are only counted.
func (s *sub) stamps(b []byte) (n int) {
	for {
		i := bytes.Index(b, stamp)
		if i < 0 {
			return n
		}
		b = b[i+len(stamp):]
		if end := bytes.IndexByte(b, ','); end > 0 {
			if t, err := strconv.ParseInt(string(b[:end]), 10, 64); err == nil {
				n++
				if t > 0 {
					s.waited = append(s.waited, time.Now().UnixNano()-t)
				}
			}
		}
	}
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflated returns what a compressed frame says. The end of RFC 7692 section 7.2.2, and
// an empty last block, make a whole stream of it.
func inflated(b []byte) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	end := strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")
	if err := r.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(b), end), nil); err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
