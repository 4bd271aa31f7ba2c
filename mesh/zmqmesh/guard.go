package zmqmesh

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/steady"
)

// The flags of a ZMTP frame.
const (
	flagMore    = 1
	flagLong    = 2
	flagCommand = 4
)

const (
	greetingBytes = 64
	maxShakeFrame = 512     // bytes, of a command of the handshake
	maxShakes     = 16      // commands of the handshake
	maxCommand    = 1 << 10 // bytes, of a command to a gateway
	maxPing       = 64      // bytes, that a PONG has to bring back
	maxSkipped    = 64      // commands in a minute that a gateway does not know
	bufferBytes   = 64 << 10
	shakeBuffer   = 1 << 10 // bytes, while hands are shaken: anybody may do that
)

const (
	shakeTimeout = 5 * time.Second // for TLS, and for the handshake
	beatPeriod   = time.Second     // of the heartbeats between replicas
	idleTimeout  = 6 * time.Second // without a byte, a peer is gone
	stallTimeout = 3 * time.Second // without a byte taken, a peer is stuck
)

// limits are what a peer may send once hands are shaken.
type limits struct {
	frame, message int // bytes
	frames         int // of one message
}

// guard is the net.Conn beneath the library's. It reads the headers of frames
// before the library does, which believes any length, and it buffers. What is
// not allowed ends Read with an error that says so; nothing of it reaches the
// library. One goroutine reads and one writes.
type guard struct {
	net.Conn
	mechanism string // of the greeting, for a better error than the library's
	limits    limits
	// ping is given what a PING wants to have sent back, and must not keep
	// it. It is called by the goroutine that reads. Where it is nil, a PING
	// is not allowed.
	ping func(context []byte)
	// subscribe is given what ZMTP 3.1 has commands for. Where it is nil, they
	// are skipped, as others are that are not known.
	subscribe func(topic []byte, on bool) error
	// patient peers may be silent for as long as they like, but not within a
	// message; for silence, where that is set, unless busy says that something
	// waits to be sent to them.
	patient bool
	silence time.Duration
	busy    func() bool
	// whole is how long a message may take from its first bytes on, and room
	// is where it asks for what the library allocates; no more than the limits
	// say where they are nil. holds is what it has of it.
	whole *pace
	room  *room
	holds int
	// ctx ends what a gateway's connection waits for, and cancel says why.
	ctx    context.Context
	cancel context.CancelCauseFunc

	below  *steady.Conn // Conn, or what is beneath its TLS
	opened time.Time
	heard  atomic.Int64 // when a read brought something last, since opened
	shaken bool         // the handshake is over
	r      *bufio.Reader
	w      *bufio.Writer
	buffer int    // bytes that each of them has after the handshake
	rest   []byte // what the smaller one has read beyond it

	greeted     bool
	minor       byte // the peer speaks ZMTP 3.minor
	skipped     int  // commands, since
	since       time.Time
	pass        int       // bytes of the present frame that were not read yet
	more        bool      // the present message goes on behind it
	frames, sum int       // of the present message
	begun       time.Time // when more of it was waited for first
}

// newGuard guards a connection. Beneath TLS there has to be a steady.Conn.
func newGuard(c net.Conn, mechanism string, l limits, buffer int) *guard {
	below, ok := beneath(c).(*steady.Conn)
	if !ok {
		below = steady.NewConn(c)
		c = below
	}
	g := &guard{Conn: c, below: below, opened: time.Now(), mechanism: mechanism, limits: l, buffer: buffer}
	g.r = bufio.NewReaderSize(timedReader{g}, shakeBuffer)
	g.w = bufio.NewWriterSize(timedWriter{g}, shakeBuffer)
	return g
}

// grow gives the connection its buffers, after the handshake.
func (g *guard) grow() {
	g.rest, _ = g.r.Peek(g.r.Buffered()) // which is there
	g.r = bufio.NewReaderSize(timedReader{g}, g.buffer)
	g.w = bufio.NewWriterSize(timedWriter{g}, g.buffer)
}

// shake does the handshake, for at most a few seconds. After an error, or a
// panic of the library, the connection is closed.
func (g *guard) shake(sec zmq4.Security, typ zmq4.SocketType, id string, server bool) (c *zmq4.Conn, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("zmqmesh: the handshake failed: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			g.Conn.Close()
		}
	}()
	if err := g.Conn.SetDeadline(time.Now().Add(shakeTimeout)); err != nil {
		return nil, err
	}
	if c, err = zmq4.Open(g, sec, typ, zmq4.SocketIdentity(id), server, nil); err != nil {
		return nil, err
	}
	g.shaken = true
	g.frames = 0
	g.grow()
	g.below.SetStall(stallTimeout)
	return c, g.Conn.SetDeadline(time.Time{})
}

// Read gives the library what it may see.
func (g *guard) Read(p []byte) (int, error) {
	if g.pass == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	n, err := g.r.Read(p[:min(len(p), g.pass)])
	if g.pass -= n; g.holds > 0 && g.pass == 0 && !g.more {
		g.room.whole(g)
	}
	return n, err
}

// next looks at the header of the next frame, and answers pings.
func (g *guard) next() error {
	if !g.greeted {
		return g.greeting()
	}
	for {
		if g.shaken && !g.more {
			g.frames, g.sum, g.begun = 0, 0, time.Time{}
		}
		head, err := g.r.Peek(2)
		if err != nil {
			return g.cut(err)
		}
		flags, size, n := head[0], uint64(head[1]), 2
		if flags&flagLong != 0 {
			if head, err = g.r.Peek(9); err != nil {
				return g.cut(err)
			}
			size, n = binary.BigEndian.Uint64(head[1:]), 9
		}
		if err := g.allow(flags, size); err != nil {
			return err
		}
		if !g.shaken || flags&flagCommand == 0 {
			g.pass = n + int(size)
			return nil
		}
		if err := g.command(n, n+int(size)); err != nil {
			return err
		}
	}
}

// cut is the error where a message is not complete.
func (g *guard) cut(err error) error {
	if err == io.EOF && (g.more || g.r.Buffered() > 0) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// silent tells whether nothing has come yet.
func (g *guard) silent() bool { return !g.greeted && g.r.Buffered() == 0 }

// greeting checks what the library would not say clearly, as soon as it is
// there: who speaks another protocol may wait for us. What else is in a greeting,
// the library checks.
func (g *guard) greeting() error {
	for _, n := range []int{1, 10, 11} {
		b, err := g.r.Peek(n)
		if err != nil {
			return g.cut(err)
		}
		if err := judgeGreeting(b); err != nil {
			return err
		}
	}
	b, err := g.r.Peek(greetingBytes)
	if err != nil {
		return g.cut(err)
	}
	g.minor = b[11]
	var want [20]byte
	copy(want[:], g.mechanism)
	if got := [20]byte(b[12:32]); got != want {
		return fmt.Errorf("zmqmesh: the peer's security mechanism is %q, which must be %s", b[12:32], g.mechanism)
	}
	g.greeted = true
	g.pass = greetingBytes
	return nil
}

// judgeGreeting says what is wrong with the first bytes of a greeting.
func judgeGreeting(b []byte) error {
	const needs = "this port needs ZMTP 3"
	switch first := b[0]; {
	case first == 0x16:
		return errors.New("zmqmesh: the peer speaks TLS; " + needs + " without it")
	case first == 1: // the length of an empty identity
		return errors.New("zmqmesh: the peer speaks ZMTP 1 (libzmq before 3.0); " + needs)
	case first != 0xff:
		return fmt.Errorf("zmqmesh: the peer does not speak ZeroMQ's protocol, as its first byte is %q; "+needs, first)
	case len(b) >= 10 && b[9] != 0x7f:
		return errors.New("zmqmesh: the peer speaks ZMTP 1 (libzmq before 3.0), or not ZeroMQ's protocol; " + needs)
	case len(b) >= 11 && b[10] < 3:
		return fmt.Errorf("zmqmesh: the peer speaks ZMTP %d (libzmq before 4.0); "+needs, min(b[10]+1, 2))
	}
	return nil
}

// allow checks a frame by its header.
func (g *guard) allow(flags byte, size uint64) error {
	command := flags&flagCommand != 0
	switch {
	case flags&^(flagMore|flagLong|flagCommand) != 0:
		return fmt.Errorf("zmqmesh: a frame has the flags %#02x, which ZMTP 3.0 does not know", flags)
	case command && flags&flagMore != 0:
		return errors.New("zmqmesh: a command has one frame, not more")
	case !g.shaken && !command:
		return errors.New("zmqmesh: a message before the end of the handshake")
	case !g.shaken && size > maxShakeFrame:
		return fmt.Errorf("zmqmesh: a frame of %d bytes in the handshake, where at most %d are allowed", size, maxShakeFrame)
	case !g.shaken:
		if g.frames++; g.frames > maxShakes {
			return fmt.Errorf("zmqmesh: more than %d commands in the handshake", maxShakes)
		}
		return nil
	case command && g.more:
		return errors.New("zmqmesh: a command inside a message")
	case command && g.ping == nil:
		return fmt.Errorf("zmqmesh: a command of %d bytes after the handshake, which is not allowed", size)
	case command && size > maxCommand:
		return fmt.Errorf("zmqmesh: a command of %d bytes after the handshake, where at most %d are allowed", size, maxCommand)
	case command:
		return nil
	case size > uint64(g.limits.frame):
		return fmt.Errorf("zmqmesh: a frame of %d bytes, where at most %d are allowed", size, g.limits.frame)
	}
	g.frames++
	g.sum += int(size)
	g.more = flags&flagMore != 0
	switch {
	case g.frames > g.limits.frames || g.more && g.frames == g.limits.frames:
		return fmt.Errorf("zmqmesh: a message of more than %d frames", g.limits.frames)
	case g.sum > g.limits.message:
		return fmt.Errorf("zmqmesh: a message of more than %d bytes", g.limits.message)
	}
	return g.reserve()
}

// reserve takes the room for what is announced of a message. Where more of it
// is to come, that is taken to be small, as a token is, so that only a message
// with two large frames takes twice.
func (g *guard) reserve() error {
	if g.room == nil || g.sum <= max(g.holds, smallMessage) {
		return nil
	}
	want := g.sum
	if g.more {
		want = min(want+smallMessage, g.limits.message)
	}
	start := time.Now()
	if err := g.room.take(g, want-g.holds); err != nil {
		return err
	}
	if !g.begun.IsZero() {
		g.begun = g.begun.Add(time.Since(start)) // it was not the peer that took its time
	}
	return nil
}

// done is for who has done with a message.
func (g *guard) done() {
	if g.holds > 0 {
		g.room.giveBack(g)
	}
}

// end hangs up a gateway's connection, for its own goroutine to tell why.
func (g *guard) end(why error) {
	g.cancel(why)
	hangUp(g.Conn)
}

// command takes a command of size bytes, of which head are its header. As
// ZeroMQ does, it skips what it does not know.
func (g *guard) command(head, size int) error {
	b, err := g.r.Peek(size)
	if err != nil {
		return g.cut(err)
	}
	name, body := "", b[head:]
	if len(body) > 0 && len(body) > int(body[0]) {
		name, body = string(body[1:1+body[0]]), body[1+body[0]:]
	}
	switch {
	case name == zmq4.CmdPing && len(body) >= 2: // of time to live
		if len(body)-2 > maxPing {
			return fmt.Errorf("zmqmesh: a PING with %d bytes to send back, where at most %d are allowed", len(body)-2, maxPing)
		}
		g.ping(body[2:])
	case name == zmq4.CmdPong:
	case g.subscribe != nil && (name == zmq4.CmdSubscribe || name == zmq4.CmdCancel):
		err = g.subscribe(body, name == zmq4.CmdSubscribe)
	case slices.Contains(shakeCommands, name):
		err = fmt.Errorf("zmqmesh: a %s after the handshake, to which it belongs", name)
	default:
		err = g.skip()
	}
	if err != nil {
		return err
	}
	_, err = g.r.Discard(size)
	return err
}

var shakeCommands = []string{zmq4.CmdReady, zmq4.CmdError, zmq4.CmdHello, zmq4.CmdWelcome, zmq4.CmdInitiate}

// skip counts a command that is not known.
func (g *guard) skip() error {
	if now := time.Now(); now.Sub(g.since) > time.Minute {
		g.skipped, g.since = 0, now
	}
	if g.skipped++; g.skipped > maxSkipped {
		return fmt.Errorf("zmqmesh: more than %d commands in a minute that are not known", maxSkipped)
	}
	return nil
}

// Write buffers. In the handshake it sends at once.
func (g *guard) Write(p []byte) (int, error) {
	n, err := g.w.Write(p)
	if err == nil && !g.shaken {
		err = g.w.Flush()
	}
	return n, err
}

// flush sends what is buffered.
func (g *guard) flush() error { return g.w.Flush() }

// timedReader and timedWriter are the connection beneath the buffers. After
// the handshake, which has one deadline for all of it, each read has one of its
// own, and where whole is set each message that comes, too. A write has as long
// as the peer takes something: a slow one is not cut, and a stuck one is.
type timedReader struct{ g *guard }

func (t timedReader) Read(p []byte) (int, error) {
	g := t.g
	if !g.shaken {
		return g.Conn.Read(p)
	}
	if len(g.rest) > 0 {
		n := copy(p, g.rest)
		if g.rest = g.rest[n:]; len(g.rest) == 0 {
			g.rest = nil
		}
		return n, nil
	}
	until, last := g.until()
	if err := g.SetReadDeadline(until); err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	for n == 0 && g.patient && !g.within() && errors.Is(err, os.ErrDeadlineExceeded) {
		if g.busy == nil || !g.busy() {
			return 0, fmt.Errorf("%w: %w", errSilent, err)
		}
		if err := g.SetReadDeadline(time.Now().Add(g.silence)); err != nil {
			return 0, err
		}
		n, err = g.Conn.Read(p)
	}
	if n > 0 {
		g.heard.Store(int64(time.Since(g.opened)))
	}
	if last && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errTooSlow, err)
	}
	return n, err
}

// errSilent is for a peer that does not answer a PING.
var errSilent = errors.New("zmqmesh: the peer does not answer")

// within returns whether a part of a message has come.
func (g *guard) within() bool { return g.more || g.pass > 0 || g.r.Buffered() > 0 }

// until is when the next bytes have to be there, and whether the whole message
// has to be there then.
func (g *guard) until() (until time.Time, last bool) {
	now, within := time.Now(), g.within()
	if g.patient && !within {
		if g.silence > 0 {
			return now.Add(g.silence), false
		}
		return time.Time{}, false
	}
	until = now.Add(idleTimeout)
	if g.whole == nil || !within {
		return until, false
	}
	if g.begun.IsZero() {
		g.begun = now
	}
	if end := g.begun.Add(g.whole.of(g.sum)); end.Before(until) {
		return end, true
	}
	return until, false
}

type timedWriter struct{ g *guard }

// errStalled is for a peer that takes nothing, and was heard meanwhile: without
// that it may as well have died.
var errStalled = errors.New("zmqmesh: the peer takes nothing")

func (t timedWriter) Write(p []byte) (int, error) {
	n, err := t.g.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(t.g.opened)-time.Duration(t.g.heard.Load()) < stallTimeout {
		err = fmt.Errorf("%w: %w", errStalled, err)
	}
	return n, err
}

// beneath is what is below TLS.
func beneath(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// hangUp closes a connection without a word, for which TLS might wait.
func hangUp(c net.Conn) { beneath(c).Close() }
