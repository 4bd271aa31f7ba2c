package zmtp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/steady"
)

// A Guard is the net.Conn beneath the library's connection. It reads the header
// of each frame before the library does, because the library allocates whatever
// a header announces, and it buffers both directions. If the peer breaks a rule,
// Read returns an error that says which one, and none of the frame reaches the
// library. One goroutine reads and one writes.
type Guard struct {
	net.Conn
	Rules // after the handshake, only the goroutine that reads may change them

	below  *steady.Conn // Conn, or what is beneath its TLS
	opened time.Time
	heard  atomic.Int64 // when a read last brought something, since opened
	shaken bool         // the handshake is over
	r      *bufio.Reader
	w      *bufio.Writer
	rest   []byte // what the handshake's buffer has read beyond the handshake

	greeted     bool
	minor       byte // the peer speaks ZMTP 3.minor
	skipped     int  // unknown commands, since the time below
	since       time.Time
	pass        int       // bytes of the present frame that have not been read yet
	lent        int       // bytes at the front of r that Message has returned
	more        bool      // the present message goes on after that frame
	frames, sum int       // of the present message; its frames and bytes
	begun       time.Time // when the guard first waited for more of it
}

// NewGuard guards a connection. If it is a TLS connection, what is beneath must
// come from [Dial] or a [Listener].
func NewGuard(c net.Conn, rules Rules) *Guard {
	below, ok := beneath(c).(*steady.Conn)
	if !ok {
		below = steady.NewConn(c)
		c = below
	}
	g := &Guard{Conn: c, Rules: rules, below: below, opened: time.Now()}
	g.r = bufio.NewReaderSize(timedReader{g}, shakeBuffer)
	g.w = bufio.NewWriterSize(timedWriter{g}, shakeBuffer)
	return g
}

// Shake does the handshake, for at most [ShakeTimeout]. After an error, or a
// panic of the library, the connection is closed.
func (g *Guard) Shake(sec zmq4.Security, typ zmq4.SocketType, id string, server bool) (c *zmq4.Conn, err error) {
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("zmtp: the handshake failed: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			g.Conn.Close()
		}
	}()
	if err := g.Conn.SetDeadline(time.Now().Add(ShakeTimeout)); err != nil {
		return nil, err
	}
	if c, err = zmq4.Open(g, sec, typ, zmq4.SocketIdentity(id), server, nil); err != nil {
		return nil, err
	}
	g.endShake()
	g.below.SetStall(StallTimeout)
	return c, g.Conn.SetDeadline(time.Time{})
}

// endShake gives the connection the buffers that it has after the handshake.
func (g *Guard) endShake() {
	g.shaken = true
	g.frames = 0
	g.rest, _ = g.r.Peek(g.r.Buffered()) // cannot fail
	g.r = bufio.NewReaderSize(timedReader{g}, g.Buffer)
	g.w = bufio.NewWriterSize(timedWriter{g}, g.Buffer)
}

// Silent reports whether nothing has come from the peer yet.
func (g *Guard) Silent() bool { return !g.greeted && g.r.Buffered() == 0 }

// Minor is the minor version of ZMTP 3 in the peer's greeting.
func (g *Guard) Minor() int { return int(g.minor) }

// Read gives the library what it may see.
func (g *Guard) Read(p []byte) (int, error) {
	if g.pass == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	n, err := g.r.Read(p[:min(len(p), g.pass)])
	if g.pass -= n; g.pass == 0 && !g.more && g.Admission != nil {
		g.Admission.Complete()
	}
	return n, err
}

// next looks at the header of the next frame. It handles commands itself.
func (g *Guard) next() error {
	if !g.greeted {
		return g.readGreeting()
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
			if head, err = g.r.Peek(MaxHeader); err != nil {
				return g.cut(err)
			}
			size, n = binary.BigEndian.Uint64(head[1:]), MaxHeader
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

// cut turns an EOF inside a message into an io.ErrUnexpectedEOF.
func (g *Guard) cut(err error) error {
	if err == io.EOF && (g.more || g.r.Buffered() > 0) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// allow checks a frame by its header.
func (g *Guard) allow(flags byte, size uint64) error {
	command := flags&flagCommand != 0
	switch {
	case flags&^(flagMore|flagLong|flagCommand) != 0:
		return fmt.Errorf("zmtp: a frame has the flags %#02x, which ZMTP 3.0 does not define", flags)
	case command && flags&flagMore != 0:
		return errors.New("zmtp: a command has more than one frame; it must have one")
	case !g.shaken && !command:
		return errors.New("zmtp: a message came before the end of the handshake")
	case !g.shaken && size > maxShakeFrame:
		return fmt.Errorf("zmtp: a frame of the handshake has %d bytes; at most %d are allowed", size, maxShakeFrame)
	case !g.shaken:
		if g.frames++; g.frames > maxShakes {
			return fmt.Errorf("zmtp: the handshake has more than %d commands", maxShakes)
		}
		return nil
	case command && g.more:
		return errors.New("zmtp: a command came inside a message")
	case command && g.Ping == nil:
		return fmt.Errorf("zmtp: a command of %d bytes came after the handshake, which is not allowed", size)
	case command && size > maxCommand:
		return fmt.Errorf("zmtp: a command of %d bytes came after the handshake; at most %d are allowed", size, maxCommand)
	case command:
		return nil
	case size > uint64(g.Limits.Frame):
		return fmt.Errorf("zmtp: a frame has %d bytes; at most %d are allowed", size, g.Limits.Frame)
	}
	g.frames++
	g.sum += int(size)
	g.more = flags&flagMore != 0
	switch {
	case g.frames > g.Limits.Frames || g.more && g.frames == g.Limits.Frames:
		return fmt.Errorf("zmtp: a message has more than %d frames", g.Limits.Frames)
	case g.sum > g.Limits.Message:
		return fmt.Errorf("zmtp: a message has more than %d bytes", g.Limits.Message)
	}
	if g.Admission == nil {
		return nil
	}
	waited, err := g.Admission.Announced(g.sum, g.more)
	if !g.begun.IsZero() {
		g.begun = g.begun.Add(waited)
	}
	return err
}

// command handles a command of size bytes, the first head of which are its
// header. Like ZeroMQ, it skips commands that it does not know.
func (g *Guard) command(head, size int) error {
	b, err := g.r.Peek(size)
	if err != nil {
		return g.cut(err)
	}
	name, body := "", b[head:]
	if len(body) > 0 && len(body) > int(body[0]) {
		name, body = string(body[1:1+body[0]]), body[1+body[0]:]
	}
	switch {
	case name == zmq4.CmdPing && len(body) >= 2: // bytes of the time to live
		if len(body)-2 > MaxPing {
			return fmt.Errorf("zmtp: a PING with %d bytes of context; at most %d are allowed", len(body)-2, MaxPing)
		}
		g.Ping(body[2:])
	case name == zmq4.CmdPong:
	case g.Subscribe != nil && (name == zmq4.CmdSubscribe || name == zmq4.CmdCancel):
		err = g.Subscribe(body, name == zmq4.CmdSubscribe)
	case slices.Contains(shakeCommands, name):
		err = fmt.Errorf("zmtp: a %s came after the handshake; it belongs inside", name)
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

// skip counts an unknown command.
func (g *Guard) skip() error {
	if now := time.Now(); now.Sub(g.since) > time.Minute {
		g.skipped, g.since = 0, now
	}
	if g.skipped++; g.skipped > maxSkipped {
		return fmt.Errorf("zmtp: the peer sent more than %d unknown commands in a minute", maxSkipped)
	}
	return nil
}

// Write buffers; see Flush. During the handshake it sends at once.
func (g *Guard) Write(p []byte) (int, error) {
	n, err := g.w.Write(p)
	if err == nil && !g.shaken {
		err = g.w.Flush()
	}
	return n, err
}

// Flush sends what Write has buffered.
func (g *Guard) Flush() error { return g.w.Flush() }

// HangUp closes the connection at once: see [HangUp].
func (g *Guard) HangUp() { HangUp(g.Conn) }
