package zmqmesh_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// A tamperer is a relay that knows ZMTP's frames and not the mesh's key.
type tamperer struct {
	*basetest.Relay
	// mischief returns what is sent instead of a frame, or nil to wait for another
	// frame. It acts once. One goroutine calls it.
	mischief func(frame []byte) [][]byte
	upwards  bool // it tampers with frames to the listener, not with those from it

	mu   sync.Mutex // guards the field below
	done bool
}

func newTamperer(t *testing.T, to string, upwards bool, mischief func([]byte) [][]byte) *tamperer {
	t.Helper()
	p := &tamperer{mischief: mischief, upwards: upwards}
	p.Relay = basetest.NewTampering(t, to, p.passFrames)
	return p
}

func (p *tamperer) passFrames(to, from net.Conn, upwards bool) {
	if _, err := io.CopyN(to, from, 64); err != nil { // the greeting
		return
	}
	for {
		f, err := readFrame(from)
		if err != nil {
			return
		}
		for _, f := range p.instead(f, upwards == p.upwards) {
			if _, err := to.Write(f); err != nil {
				return
			}
		}
	}
}

func (p *tamperer) instead(f []byte, tamper bool) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if tamper && !p.done && f[0]&4 == 0 {
		if other := p.mischief(f); other != nil {
			p.done = true
			return other
		}
	}
	return [][]byte{f}
}

// happened tells whether the mischief was done.
func (p *tamperer) happened() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// body is what follows a frame's header.
func body(f []byte) []byte {
	if f[0]&2 != 0 {
		return f[9:]
	}
	return f[2:]
}

// TestSealedAgainstTampering: somebody between two replicas who does not know the
// key delivers nothing. The first message that is not as it was sent ends the
// link, with a KindLost, and the next link works.
func TestSealedAgainstTampering(t *testing.T) {
	t.Parallel()
	// A frame of packets is longer than an echo with its seal.
	isPackets := func(f []byte) bool { return len(body(f)) > 9+16 }
	forged := packet.Append([]byte{'P'}, &mesh.Packet{Seq: 1 << 40, Channel: "ch", Header: "forged", Body: []byte("1\n\ndata: 2")})
	var before []byte // the frame of packets before
	for name, mischief := range map[string]func(f []byte) [][]byte{
		"inject":        func(f []byte) [][]byte { return [][]byte{f, frame(0, string(forged))} },
		"inject a seal": func(f []byte) [][]byte { return [][]byte{frame(0, string(append(forged, body(f)[:16]...))), f} },
		"inject empty":  func(f []byte) [][]byte { return [][]byte{frame(0, ""), f} },
		"replay":        func(f []byte) [][]byte { return [][]byte{f, f} },
		"drop":          func([]byte) [][]byte { return [][]byte{} },
		"truncate":      func(f []byte) [][]byte { return [][]byte{frame(0, string(body(f)[:len(body(f))-1]))} },
		"lengthen":      func(f []byte) [][]byte { return [][]byte{frame(0, string(body(f))+"x")} },
		"change": func(f []byte) [][]byte {
			f = slices.Clone(f)
			f[len(f)-20] ^= 1
			return [][]byte{f}
		},
		"swap": func(f []byte) [][]byte {
			if before == nil {
				before = f
				return nil
			}
			return [][]byte{f, before}
		},
		"cut in two": func(f []byte) [][]byte {
			half := len(body(f)) / 2
			return [][]byte{frame(0, string(body(f)[:half])), frame(0, string(body(f)[half:]))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log logbook
			key := withKey("the key of the mesh")
			a, b := newMesh(t, "a", key, withLog(&log)), newMesh(t, "b", key, withLog(&log))
			p := newTamperer(t, tcp(a), false, func(f []byte) [][]byte {
				if !isPackets(f) {
					return nil
				}
				return mischief(f)
			})
			require.NoError(t, b.Subscribe("ch"))
			in := link(t, b, "a", "tcp://"+p.Addr)
			told := in.count(lostOf("a"))
			n := 0
			publish := func() {
				n++
				require.NoError(t, a.Publish(t.Context(), mesh.Packet{Channel: "ch", Header: fmt.Sprint(n), Body: []byte(strings.Repeat("x", 50))}))
			}
			eventually(t, "the mischief is done, and told", func() bool {
				publish()
				time.Sleep(time.Millisecond) // so that they are several frames
				return p.happened() && in.count(lostOf("a")) > told
			})
			eventually(t, "the log says why", func() bool { return log.Has("not as the replica has sealed it") })
			awaitUp(t, b, "a")
			from := n
			eventually(t, "the next link works", func() bool {
				publish()
				return in.count(func(p mesh.Packet) bool {
					is, err := strconv.Atoi(p.Header)
					return err == nil && is > from
				}) > 0
			})
			last := 0
			for _, p := range in.clear() {
				if p.Kind != mesh.KindMessage {
					continue
				}
				var is int
				_, err := fmt.Sscan(p.Header, &is)
				require.NoError(t, err, "a packet that nobody has sent: %q", p.Header)
				require.Greater(t, is, last, "in their order, each once")
				require.Equal(t, strings.Repeat("x", 50), string(p.Body))
				last = is
			}
		})
	}
}

// TestSealedQuestions: nobody else can subscribe for a replica or end its
// subscriptions. The listener counts and logs the attempt.
func TestSealedQuestions(t *testing.T) {
	t.Parallel()
	for name, mischief := range map[string]func(f []byte) [][]byte{
		"subscribe": func(f []byte) [][]byte { return [][]byte{f, frame(0, "\x01secret\x00")} },
		"leave":     func(f []byte) [][]byte { return [][]byte{f, frame(0, "\x00ch\x00")} },
		"replay":    func(f []byte) [][]byte { return [][]byte{f, f} },
		"drop":      func([]byte) [][]byte { return [][]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			var log logbook
			key := withKey("the key of the mesh")
			a, b := newMesh(t, "a", key, withLog(&log)), newMesh(t, "b", key, withLog(&log))
			p := newTamperer(t, tcp(a), true, mischief)
			in := receive(t, b)
			require.NoError(t, b.Subscribe("ch"))
			b.SetPeers(map[string]string{"a": "tcp://" + p.Addr})
			eventually(t, "the listener counts it", func() bool { return a.Status().Refused > 0 })
			eventually(t, "and logs it", func() bool {
				return strings.Contains(log.Line("refused a connection"), "not as the replica has sealed it")
			})
			eventually(t, "the next link works", func() bool {
				require.NoError(t, a.Publish(t.Context(), mesh.Packet{Channel: "ch", Header: "h"}))
				return in.count(message("h")) > 0
			})
		})
	}
}

// TestSealedFromReading: nobody can read what replicas with a key send.
func TestSealedFromReading(t *testing.T) {
	t.Parallel()
	key := withKey("the key of the mesh")
	a, b := newMesh(t, "a", key), newMesh(t, "b", key)
	var mu sync.Mutex
	var seen []byte
	p := newTamperer(t, tcp(a), false, func(f []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, f...)
		return nil
	})
	require.NoError(t, b.Subscribe("ch"))
	in := link(t, b, "a", "tcp://"+p.Addr)
	for i, size := range []int{10, zmqmesh.ChunkBytes / 4, 3 * zmqmesh.ChunkBytes, 1 << 20} { // some are copied, others shared
		text := []byte(strings.Repeat("a secret ", size/9+1))
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Channel: "ch", Header: fmt.Sprint(i), Body: text}))
		in.await(t, func(p mesh.Packet) bool { return p.Header == fmt.Sprint(i) && bytes.Equal(p.Body, text) })
	}
	mu.Lock()
	defer mu.Unlock()
	require.Greater(t, len(seen), 1<<20)
	require.NotContains(t, string(seen), "secret")
}
