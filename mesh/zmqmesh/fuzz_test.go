package zmqmesh_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// A script is a connection whose peer sends these bytes, and then ends.
type script struct {
	net.Conn
	r io.Reader
}

func (s script) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s script) Write(p []byte) (int, error)      { return len(p), nil }
func (s script) Close() error                     { return nil }
func (s script) SetDeadline(time.Time) error      { return nil }
func (s script) SetReadDeadline(time.Time) error  { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }

// greeting is what a peer with a security mechanism sends first.
func greeting(mechanism string) []byte {
	b := make([]byte, 64)
	b[0], b[9], b[10] = 0xff, 0x7f, 3
	copy(b[12:], mechanism)
	return b
}

// frame is a ZMTP frame; long has a length of 8 bytes.
func frame(flags byte, body string) []byte {
	if flags&2 == 0 {
		return append([]byte{flags, byte(len(body))}, body...)
	}
	return append([]byte{flags, 0, 0, 0, 0, 0, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

// readyPush is the rest of the handshake of a PUSH socket.
var readyPush = frame(4, "\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH")

// FuzzGuard sends anything to a guarded PULL socket, from the greeting on or
// from the end of the handshake on. Nothing may panic, need more memory than
// the limits, or get past them.
func FuzzGuard(f *testing.F) {
	const maxFrame, maxMessage, maxFrames = 1 << 10, 4 << 10, 8
	shaken := append(greeting("NULL"), readyPush...)
	message := append(frame(1, "channel\x00"), frame(0, "body")...)
	ping := frame(4, "\x04PING\x00\x00ctx")
	for _, seed := range [][]byte{
		message, append(ping, message...), frame(2, "long"), {2, 0x40, 0, 0, 0, 0, 0, 0, 0}, {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		bytes.Repeat(frame(1, ""), 20), bytes.Repeat(frame(1, string(make([]byte, 255))), 20), bytes.Repeat(ping, 10), frame(5, "\x04PING"),
		append(frame(1, "x"), ping...), frame(4, "\x05READY"), frame(8, ""), {0}, {},
	} {
		f.Add(true, seed)
		f.Add(false, append(append([]byte{}, shaken...), seed...))
	}
	f.Add(false, append(greeting("NULL"), frame(4, "\x05READY\x0bSocket-Type\xff\xff\xff\xff")...))
	f.Add(false, append(greeting("NULL"), frame(4, "\x05READY\xff")...))
	f.Add(false, append(greeting("NULL"), frame(4, "\x05READY\x0bSocket-Typ")...)) // on which the library panics
	f.Add(false, append(greeting("NULL"), frame(4, "")...))
	f.Add(false, append(greeting("NULL"), frame(6, string(make([]byte, 600)))...))
	f.Fuzz(func(t *testing.T, ready bool, b []byte) {
		if ready {
			b = append(append([]byte{}, shaken...), b...)
		}
		c, err := zmqmesh.OpenGuarded(script{r: bytes.NewReader(b)}, null.Security(), zmq4.Pull, maxFrame, maxMessage, maxFrames)
		if err != nil {
			if ready {
				t.Fatal("the handshake failed: ", err)
			}
			return
		}
		for {
			msg, err := c.RecvMsg()
			if err != nil {
				return
			}
			sum := 0
			for _, b := range msg.Frames {
				require.LessOrEqual(t, len(b), maxFrame)
				sum += len(b)
			}
			require.LessOrEqual(t, len(msg.Frames), maxFrames)
			require.LessOrEqual(t, sum, maxMessage)
			require.Equal(t, zmq4.UsrMsg, msg.Type, "a command got through")
		}
	})
}

// TestGuardBeforeMemory: a length that is not allowed costs nothing.
func TestGuardBeforeMemory(t *testing.T) {
	b := append(append(greeting("NULL"), readyPush...), 2, 0, 0, 0, 0, 0x40, 0, 0, 0) // 1 GiB
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := zmqmesh.OpenGuarded(script{r: bytes.NewReader(b)}, null.Security(), zmq4.Pull, 1<<20, 1<<20, 8)
	require.NoError(t, err)
	_, err = c.RecvMsg()
	require.ErrorContains(t, err, "a frame of 1073741824 bytes, where at most 1048576 are allowed")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

// FuzzPacket has a mesh take anything as the packets of a peer, as its
// questions and as what it says of itself.
func FuzzPacket(f *testing.F) {
	var some []byte
	for i, p := range []mesh.Packet{
		{Channel: "x", Header: "h", Body: []byte(`{"a":1}`), Epoch: "e", Offset: 7, Sender: "s"},
		{To: "fuzz", Channel: "y", Kind: mesh.KindControl}, {To: "other"}, {Channel: "y"}, {},
	} {
		p.Seq = uint64(i + 1)
		some = packet.Append(some, &p)
		f.Add(packet.Append(nil, &p))
	}
	f.Add(some)
	f.Add([]byte("\x01channel\x00"))
	f.Add(append([]byte{packet.Version, 1}, bytes.Repeat([]byte("i"), 60)...))
	f.Add([]byte("\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	m := open(f, quiet("fuzz"))
	require.NoError(f, m.Subscribe("x"))
	in := receive(f, m)
	probe := packet.Append(nil, &mesh.Packet{Seq: 1, Header: "probe"})
	eventually(f, "packets arrive", func() bool {
		require.NoError(f, zmqmesh.Packets(m, probe))
		return in.count(message("probe")) > 0
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		in.clear()
		before := append([]byte{}, b...)
		_ = zmqmesh.Packets(m, b)
		for _, p := range in.clear() {
			require.Equal(t, "peer", p.Origin)
			require.Less(t, p.Kind, mesh.KindLost)
			require.True(t, p.To == "fuzz" || p.To == "" && (p.Channel == "x" || p.Channel == ""), "%+v", p)
			require.LessOrEqual(t, len(p.Body)+len(p.Header)+len(p.Channel)+len(p.Epoch)+len(p.Sender), len(b))
			for i := range p.Body {
				p.Body[i] = 0
			}
		}
		require.Equal(t, before, b, "what is delivered shares memory with other packets")
		_ = zmqmesh.Ask(m, b)
		if again, err := zmqmesh.ParseHello(b); err == nil {
			require.Equal(t, b, again)
		}
	})
}
