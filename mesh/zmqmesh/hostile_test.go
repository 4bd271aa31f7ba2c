package zmqmesh_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestHostileStrangers: whatever a stranger sends to the port does no harm.
func TestHostileStrangers(t *testing.T) {
	t.Parallel()
	var log logbook
	m := newMesh(t, "m", withLog(&log))
	in := receive(t, m)
	random := make([]byte, 100_000)
	rand.Read(random) // never fails
	ours := greeting("CHANNELS")
	with := func(b ...[]byte) []byte { return bytes.Join(append([][]byte{ours}, b...), nil) }
	for name, bytes := range map[string][]byte{
		"random bytes":         random,
		"random, then":         with(random),
		"HTTP":                 []byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + strings.Repeat("x", 64) + "\r\n\r\n"),
		"another mechanism":    greeting("NULL"),
		"PLAIN":                greeting("PLAIN"),
		"a length of 2^62":     with([]byte{6, 0x40, 0, 0, 0, 0, 0, 0, 0}),
		"a length of 2^64-1":   with([]byte{6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"600 bytes":            with(frame(6, strings.Repeat("x", 600))),
		"an empty command":     with(frame(4, "")),
		"a name that is short": with(frame(4, "\xffHELLO")),
		"a malformed READY":    with(frame(4, "\x05READY\x0bSocket-Type\xff\xff\xff\xff")),
		"an empty HELLO":       with(frame(4, "\x05HELLO")),
		"a short HELLO":        with(frame(4, "\x05HELLO\x01\x00abc")),
		"no id":                with(frame(4, "\x05HELLO\x01"+strings.Repeat("\x00", 45))),
		"a message at once":    with(frame(0, "hello")),
		"endless MORE":         with([]byte{5, 1, 'x'}, []byte{1, 1, 'x'}),
		"unknown flags":        with([]byte{0xf4, 1, 'x'}),
		"a flood of PING":      with([]byte(strings.Repeat(string(frame(4, "\x04PING\x00\x00")), 1000))),
		"an old protocol":      with(frame(4, "\x05HELLO\x00"+strings.Repeat("\x00", 44)+"id")),
		"a new protocol":       with(frame(4, "\x05HELLO\x63"+strings.Repeat("\x00", 44)+"id")),
	} {
		before := m.Status().Refused
		c := dial(t, m)
		_, _ = c.Write(bytes) // it may be closed before all is written
		requireHungUp(t, c)
		eventually(t, name+" is counted", func() bool { return m.Status().Refused == before+1 })
	}
	before := m.Status().Refused
	require.NoError(t, dial(t, m).Close()) // only looks whether the port is open
	require.Empty(t, m.Status().Peers)
	requireWorks(t, m, in, "friend")
	require.Equal(t, before, m.Status().Refused)
	eventually(t, "it is logged", func() bool { return log.Has("refused a connection") })
}

// TestRefusedVersions: a replica with another version, or with one that does not
// protect what is sent with its key, is refused, and both sides say why.
func TestRefusedVersions(t *testing.T) {
	t.Parallel()
	for says, hello := range map[string]struct{ key, begin string }{
		"speaks version 99 of the mesh's protocol, and this one only 1": {"", "\x63\x00"},
		"whose key does not protect what is sent: update it":            {"0123456789abcdef", "\x01\x01"},
	} {
		var log logbook
		c := dial(t, newMesh(t, "m", withKey(hello.key), withLog(&log)))
		write(t, c, greeting("CHANNELS"), frame(4, "\x05HELLO"+hello.begin+strings.Repeat("\x00", 44)+"id"))
		told, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Contains(t, string(told), says)
		eventually(t, "it is logged", func() bool { return log.Has(says) })
	}
}

// TestSilentConnections: a thousand silent connections keep nobody out, and are
// bounded. Not parallel, because it counts goroutines.
func TestSilentConnections(t *testing.T) {
	m := newMesh(t, "m")
	in := receive(t, m)
	before := runtime.NumGoroutine()
	var last net.Conn
	for range 1000 {
		last = dial(t, m)
	}
	_, err := io.ReadFull(last, make([]byte, 64))
	require.NoError(t, err, "the last one gets a greeting: earlier ones made room")
	eventually(t, "all but the last have made room", func() bool { return m.Status().Refused >= 1000-zmtp.MaxShaking })
	eventually(t, "their goroutines have ended, too", func() bool { return runtime.NumGoroutine()-before < zmtp.MaxShaking+16 })
	requireWorks(t, m, in, "friend")
	eventually(t, "the last are closed too", func() bool { return m.Status().Refused >= 1000 })
}

// TestHostilePeers: after the handshake, too, what the other side sends is
// bounded.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m")
	in := receive(t, m)
	many := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	for name, b := range map[string][]byte{
		"a length of 2^62":     {2, 0x40, 0, 0, 0, 0, 0, 0, 0},
		"1025 bytes":           frame(2, strings.Repeat("x", 1025)),
		"endless MORE":         many(frame(1, "\x01x\x00"), 1000),
		"a flood of PING":      many(frame(4, "\x04PING\x00\x00"), 1000),
		"another command":      frame(4, "\x05READY"),
		"a topic without end":  frame(0, "\x01channel"),
		"a long topic":         frame(2, "\x01"+strings.Repeat("x", zmqmesh.MaxTopic+1)+"\x00"),
		"all channels":         frame(0, "\x01"),
		"an unknown question":  frame(0, "\x07channel\x00"),
		"an empty question":    frame(0, ""),
		"a message of packets": frame(0, "P"+string(packet.Append(nil, &mesh.Packet{Header: "forged"}))),
	} {
		c, _ := join(t, m, "hostile")
		_, _ = c.Write(b)
		requireHungUp(t, c)
		eventually(t, name+": it is no peer any more", func() bool { return len(m.Status().Peers) == 0 })
	}
	require.Zero(t, in.count(message("forged")))
	requireWorks(t, m, in, "friend")
}

// TestEchoFlood: a replica that asks and does not read the answers is cut off.
func TestEchoFlood(t *testing.T) {
	t.Parallel()
	var log logbook
	m := newMesh(t, "m", withLog(&log))
	c, _ := join(t, m, "hostile")
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	var err error
	flood := bytes.Repeat(append([]byte{0, 9, 2}, make([]byte, 8)...), 10_000)
	for err == nil {
		_, err = c.Write(flood)
	}
	require.False(t, isTimeout(err), "it was not cut off")
	eventually(t, "because of the echoes", func() bool { return log.Has("echoes and does not read") })
	awaitPeers(t, m, 0)
}

// TestHostilePublisher: what a dialled replica sends is bounded, and that replica
// is dialled again only after a pause.
func TestHostilePublisher(t *testing.T) {
	t.Parallel()
	big := packet.Append([]byte{'P'}, &mesh.Packet{Seq: 1, Header: "cut", Body: make([]byte, 100)})
	for name, b := range map[string][]byte{
		"a length of 2^62":     {2, 0x40, 0, 0, 0, 0, 0, 0, 0},
		"too long":             {2, 0, 0, 0, 0, 2, 0, 0, 0},
		"endless MORE":         bytes.Repeat(frame(1, "P"), 1000),
		"a command":            frame(4, "\x05ERROR"),
		"an empty message":     frame(0, ""),
		"no packet":            frame(0, "Pxxx"),
		"an unknown message":   frame(0, "Z"),
		"an echo nobody asked": frame(0, "E\x00\x00\x00\x00\x00\x00\x00\x63"),
		"half a message":       append([]byte{0, byte(len(big))}, big[:50]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostile := newStage(t)
			m := newMesh(t, "m")
			in := receive(t, m)
			m.SetPeers(map[string]string{"stage": hostile.address()})
			for range 3 {
				c, _ := hostile.shake()
				_, _ = c.Write(b)
				if name == "half a message" {
					require.NoError(t, c.Close())
					continue
				}
				requireHungUp(t, c)
				c.Close()
			}
			eventually(t, "the error is told", func() bool {
				p := m.Status().Peers
				return len(p) == 1 && p[0].Err != "" && !p[0].Up
			})
			require.Zero(t, in.count(message("cut")))
		})
	}
}

// TestForgedProof: no key, a wrong key, a proof of another connection and a proof
// of the other side let nobody in.
func TestForgedProof(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef")
	m := newMesh(t, "m", withKey(string(key)))
	in := receive(t, m)
	refused := func(what string, knock func(c net.Conn) error) {
		t.Helper()
		before := m.Status().Refused
		require.Error(t, knock(dial(t, m)), what)
		eventually(t, what+" is refused", func() bool { return m.Status().Refused > before })
	}
	refused("no key", func(c net.Conn) error { _, err := zmqmesh.Shake(c, "x", 1, nil, false); return err })
	refused("a wrong key", func(c net.Conn) error {
		_, err := zmqmesh.Shake(c, "x", 1, []byte("0123456789abcdeg"), false)
		return err
	})
	// A stranger in between uses the proof of one connection on another.
	refused("a replayed proof", func(c net.Conn) error {
		recorded := &recorder{Conn: dial(t, m)}
		_, err := zmqmesh.Shake(recorded, "x", 1, key, false)
		require.NoError(t, err)
		_, err = c.Write(recorded.sent.Bytes())
		require.NoError(t, err)
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Contains(t, string(got), "does not know the key")
		recorded.Close()
		awaitPeers(t, m, 0) // the one with the key has gone
		return io.EOF
	})
	refused("its own words", func(c net.Conn) error {
		_, err := io.Copy(c, c) // what the listener says is sent back to it
		requireHungUp(t, c)
		if err == nil {
			err = io.EOF
		}
		return err
	})
	requireWorks(t, m, in, "friend", withKey(string(key)))
	for _, p := range m.Status().Peers {
		require.Equal(t, "friend", p.ID)
	}

	// A listener without the key gets nothing from a replica that dials it.
	other := newStage(t)
	m.SetPeers(map[string]string{"false": other.address()})
	_, err := zmqmesh.Shake(accept(t, other.ln), "false", 7, []byte("another key of 16"), true)
	require.ErrorContains(t, err, "does not know the key")
	c := accept(t, other.ln)
	require.Error(t, zmqmesh.Impostor(c), "the dialler asks for channels")
	c.Close()
	eventually(t, "the dialler says why", func() bool {
		p := m.Status().Peers
		return len(p) == 1 && strings.Contains(p[0].Err, "the replica does not know the key")
	})
	m.SetPeers(nil)
}

// recorder keeps what is sent.
type recorder struct {
	net.Conn
	sent bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.sent.Write(p)
	return r.Conn.Write(p)
}

// TestLibzmqRefused: ZeroMQ's own sockets are refused, because they are no
// replicas.
func TestLibzmqRefused(t *testing.T) {
	t.Parallel()
	python := zmtptest.Python(t)
	m := newMesh(t, "m")
	out, err := exec.Command(python, "-c", `
import sys, zmq
from zmq.utils.monitor import recv_monitor_message
over = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
def refused(kind):
    s = zmq.Context.instance().socket(getattr(zmq, kind))
    s.linger = 0
    monitor = s.get_monitor_socket(addr="inproc://" + kind) # the default one may be taken by a socket that is being closed
    if kind == "SUB": s.subscribe(b"")
    s.connect(sys.argv[1])
    while monitor.poll(30000):
        event = recv_monitor_message(monitor)["event"]
        if event & zmq.EVENT_HANDSHAKE_SUCCEEDED: sys.exit(kind + " was let in")
        if event & over:
            s.close()
            return
    sys.exit(kind + ": nothing happened")
refused("SUB")
refused("XSUB")
`, m.Address()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, m.Status().Peers)
}

// TestFloodFromOneAddress: an address that opens more connections than may be in
// their handshake does not push out those of another address.
func TestFloodFromOneAddress(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m")
	const few, more = 50, 200
	// On a busy machine, the flood may take longer than a handshake has. Then it is tried again.
	eventually(t, "who is slow gets in", func() bool {
		began, before := time.Now(), m.Status().Refused
		var slow []net.Conn
		for range few {
			slow = append(slow, dialFrom(t, "127.0.0.1", m.Address()))
		}
		for range zmtp.MaxShaking - few + more {
			dialFrom(t, "127.0.0.2", m.Address())
		}
		eventually(t, "the flood makes room for itself", func() bool { return m.Status().Refused >= before+more })
		for i, c := range slow {
			if _, err := zmqmesh.Shake(c, fmt.Sprint("slow-", i), 7, nil, false); err != nil {
				require.Greater(t, time.Since(began), zmtp.ShakeTimeout, err)
				return false
			}
		}
		return true
	})
}
