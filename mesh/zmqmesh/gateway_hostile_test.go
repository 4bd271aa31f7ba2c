package zmqmesh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// READY of a socket of libzmq.
func readyOf(typ string) []byte {
	return frame(4, "\x05READY\x0bSocket-Type\x00\x00\x00"+string(rune(len(typ)))+typ)
}

// What anybody can send to the three ports harms nobody: the connection is
// closed, and others go on.
func TestGatewayHostileStrangers(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) { o.MaxMessageBytes = 64 << 10 })
	pub, pull, rep := g.Addresses()
	reader := dialSocket(t, pub, zmq4.Sub)
	reader.send(t, "\x01")
	reader.ready(t, hub, "alive")
	random := make([]byte, 100_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for address, typ := range map[string]string{pub: "SUB", pull: "PUSH", rep: "DEALER"} {
		shaken := func(b ...[]byte) []byte {
			return bytes.Join(append([][]byte{greeting("NULL"), readyOf(typ)}, b...), nil)
		}
		more := bytes.Repeat(frame(1, "x"), 10_000)
		for _, b := range map[string][]byte{
			"random bytes":               random,
			"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + strings.Repeat("x", 64) + "\r\n\r\n"),
			"another mechanism":          greeting("PLAIN"),
			"random after the greeting":  append(greeting("NULL"), random...),
			"a huge READY":               append(greeting("NULL"), 6, 0x40, 0, 0, 0, 0, 0, 0, 0),
			"a malformed READY":          append(greeting("NULL"), frame(4, "\x05READY\x0bSocket-Type\xff\xff\xff\xff")...),
			"another type":               append(greeting("NULL"), readyOf("PAIR")...),
			"a length of 2^62":           shaken([]byte{2, 0x40, 0, 0, 0, 0, 0, 0, 0}),
			"a length of 2^64-1":         shaken([]byte{3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
			"endless MORE":               shaken(more),
			"a message too long":         shaken([]byte{2, 0, 0, 0, 0, 0, 1, 0, 1}),
			"a command of the handshake": shaken(readyOf(typ)),
			"a command in a message":     shaken(frame(1, "\x01"), frame(4, "\x04PING\x00\x00")),
			"unknown flags":              shaken([]byte{0xf0, 1, 'x'}),
		} {
			c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			c.Write(b) // it may be hung up before all is sent
			requireHungUp(t, c)
			c.Close()
		}
		// Half a message, and gone.
		for _, b := range [][]byte{{}, {1}, {1, 5, 'a'}, append(frame(1, "alive\x00"), frame(1, "half")...)} {
			c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
			require.NoError(t, err)
			c.Write(shaken(b))
			require.NoError(t, c.Close())
		}
		// PINGs without end, of which the answers are not read.
		c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
		require.NoError(t, err)
		c.Write(shaken(bytes.Repeat(frame(4, "\x04PING\x00\x00"+strings.Repeat("x", 16)), 20_000)))
		c.Close()
	}
	eventually(t, "all of the first kind are counted", func() bool { return g.Stats().Refused >= 3*14 })
	publish(t, hub, "alive", "yes", "1")
	require.Equal(t, "yes", reader.next(t)[1])
	require.EqualValues(t, 0, g.Stats().Published)
	requireGatewayWorks(t, hub, g)
}

func requireGatewayWorks(t *testing.T, hub *channels.Hub, g *zmqmesh.Gateway) {
	t.Helper()
	pub, pull, rep := g.Addresses()
	s, p, r := dialSocket(t, pub, zmq4.Sub), dialSocket(t, pull, zmq4.Push), dialSocket(t, rep, zmq4.Req)
	s.send(t, "\x01works\x00")
	s.ready(t, hub, "works")
	p.send(t, "works", "pushed", "1")
	require.Equal(t, []string{"works\x00", "pushed", "1"}, s.next(t))
	r.send(t, "", "publish", "works", "asked", "2")
	require.Equal(t, []string{"", `{"status":"ok"}`}, r.next(t))
	require.Equal(t, []string{"works\x00", "asked", "2"}, s.next(t))
	for _, c := range []*socket{s, p, r} {
		c.tcp.Close()
	}
}

// 1,000 silent connections at each port keep nobody out, whether they have
// shaken hands or not, and what they held is given back.
func TestGatewayThousandSilent(t *testing.T) {
	for what, shake := range map[string]bool{"before the handshake": false, "behind it": true} {
		t.Run(what, func(t *testing.T) { testThousandSilent(t, shake) })
	}
}

func testThousandSilent(t *testing.T, shake bool) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, pull, rep := g.Addresses()
	requireGatewayWorks(t, hub, g)
	goroutines, before := runtime.NumGoroutine(), heap()
	var open []net.Conn
	for address, typ := range map[string]string{pub: "SUB", pull: "PUSH", rep: "DEALER"} {
		for range 1000 {
			c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
			require.NoError(t, err)
			open = append(open, c)
			if shake {
				require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
				_, err = c.Write(append(greeting("NULL"), readyOf(typ)...))
				require.NoError(t, err)
				var b [64 + 2]byte
				_, err = io.ReadFull(c, b[:])
				require.NoError(t, err)
			}
		}
	}
	require.Less(t, heap()-before, int64(100<<20))
	requireGatewayWorks(t, hub, g)
	for _, c := range open {
		c.Close()
	}
	eventually(t, "all is given back", func() bool {
		return runtime.NumGoroutine() <= goroutines && heap()-before < 20<<20
	})
}

// Strangers at their bound keep nobody out either while others shake hands
// at theirs. Who knows the token keeps its place, and where all do, a newcomer
// is refused.
func TestGatewayStrangersMakeWay(t *testing.T) {
	hub := newHub(t, channels.Options{})
	const token, most = "0123456789abcdef", 5
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) {
		o.Token, o.MaxConnections = []byte(token), most
	})
	_, pull, rep := g.Addresses()
	for address, typ := range map[string]zmq4.SocketType{pull: zmq4.Push, rep: zmq4.Req} {
		published := g.Stats().Published
		accepted := func(s *socket) {
			t.Helper()
			if typ == zmq4.Push {
				s.send(t, "a", "h", "1", token)
			} else {
				s.send(t, "", "publish", "a", "h", "1", token)
				require.Equal(t, []string{"", `{"status":"ok"}`}, s.next(t))
			}
			published++
			eventually(t, "it is published", func() bool { return g.Stats().Published == published })
		}
		var strangers, known []*socket
		for range most {
			rejected := g.Stats().Rejected
			s := dialSocket(t, address, typ)
			strangers = append(strangers, s)
			if typ == zmq4.Push {
				s.send(t, "a", "h", "1", "another token...")
			} else {
				s.send(t, "", "publish", "a", "h", "1", "another token...")
				require.Contains(t, s.next(t)[1], "bad_token")
			}
			eventually(t, "it is in", func() bool { return g.Stats().Rejected > rejected })
		}
		before := g.Stats().Refused
		for range 100 { // do not even shake hands
			c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
			require.NoError(t, err)
			defer c.Close()
		}
		for i := range most {
			s := dialSocket(t, address, typ)
			requireHungUp(t, strangers[i].tcp) // the oldest
			accepted(s)
			for _, k := range known {
				accepted(k)
			}
			known = append(known, s)
		}
		s := dialSocket(t, address, typ)
		requireHungUp(t, s.tcp)
		for _, k := range known {
			accepted(k)
		}
		eventually(t, "all are counted", func() bool { return g.Stats().Refused >= before+100-64+most+1 })
	}
}

// Peers may be silent between messages for as long as they like, but who stops
// within one is hung up.
func TestGatewayPatience(t *testing.T) {
	t.Parallel()
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	_, pull, _ := g.Addresses()
	silent, half := dialSocket(t, pull, zmq4.Push), dialSocket(t, pull, zmq4.Push)
	silent.send(t, "a", "first", "1")
	_, err := half.tcp.Write(append(frame(1, "a"), 1, 100, 'x'))
	require.NoError(t, err)
	requireHungUp(t, half.tcp) // after IdleTimeout: as long as that, the other is silent too
	silent.send(t, "a", "second", "2")
	eventually(t, "both are published", func() bool { return g.Stats().Published == 2 })
}

// FuzzASCII: escaped JSON is ASCII and the same value.
func FuzzASCII(f *testing.F) {
	for _, s := range []string{`"안녕"`, `{"a":"😀\u00e9é\\"}`, `"\ud83d"`, `[1,"\""]`, "\"\xff\"", `"\\é"`, "\"\u2028\x7f\"", "1e999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		a := zmqmesh.AppendASCII([]byte("x"), b)[1:]
		require.Equal(t, before, b)
		for _, c := range a {
			require.Less(t, c, byte(utf8.RuneSelf))
		}
		if !json.Valid(b) {
			return // the hub has refused it
		}
		value := func(b []byte) (v any) {
			d := json.NewDecoder(bytes.NewReader(b))
			d.UseNumber() // any is valid, also one that no float64 has
			require.NoError(t, d.Decode(&v))
			return v
		}
		require.Equal(t, value(b), value(a))
	})
}

// FuzzLatin1: what Latin-1 has comes back; what it has not is one "?".
func FuzzLatin1(f *testing.F) {
	f.Add("héllo")
	f.Add("안a")
	f.Fuzz(func(t *testing.T, s string) {
		b := zmqmesh.ToLatin1(s)
		require.Len(t, b, utf8.RuneCountInString(s))
		require.Equal(t, b, zmqmesh.ToLatin1(zmqmesh.FromLatin1(b)))
		fits := true
		for _, r := range s {
			fits = fits && r <= 0xff
		}
		if fits {
			require.Equal(t, s, zmqmesh.FromLatin1(b))
		}
	})
}

// answering answers requests, and checks what it is asked.
type answering struct {
	zmqmesh.GatewayHub
	t *testing.T
}

func (a answering) Publish(_ context.Context, channel, header string, body json.RawMessage) ([]byte, error) {
	require.True(a.t, utf8.ValidString(header))
	return []byte(`{"status":"ok"}`), nil
}
func (a answering) Channels(_ context.Context, prefix, limit, cursor string) []byte {
	return []byte(`{}`)
}
func (a answering) Channel(_ context.Context, name string) []byte { return []byte(`{}`) }

// FuzzRequest: any frames get one answer in JSON, behind the envelope that
// they came in, and never one without the token.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("|publish|a|h|1|0123456789abcdef"))
	f.Add([]byte("id||list|0123456789abcdef"))
	f.Add([]byte("channel|a"))
	f.Add([]byte("||list"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := bytes.Split(b, []byte("|"))
		envelope, answer := zmqmesh.Answer(t, answering{t: t}, []byte("0123456789abcdef"), frames)
		require.True(t, json.Valid(answer))
		require.LessOrEqual(t, len(envelope), len(frames))
		if n := len(envelope); n > 0 {
			require.Equal(t, frames[:n], envelope)
			require.Empty(t, envelope[n-1]) // the others may be, too
		}
		if !bytes.HasSuffix(b, []byte("|0123456789abcdef")) && string(b) != "0123456789abcdef" {
			require.Contains(t, string(answer), "bad_token")
		}
	})
}
