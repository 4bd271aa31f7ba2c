package zmqgateway_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/zmqgateway"
)

// Whatever a stranger sends to the three ports harms nobody else: its connection
// is closed, and others go on.
func TestHostileStrangers(t *testing.T) {
	hub, g := start(t, func(o *setup) { o.MaxMessageBytes = 64 << 10 })
	pub, pull, rep := g.Addresses()
	reader := subscribe(t, hub, g, "", "alive")
	random := make([]byte, 100_000)
	rand.Read(random) // never fails
	for address, typ := range map[string]string{pub: "SUB", pull: "PUSH", rep: "DEALER"} {
		shaken := func(then ...[]byte) []byte { return shaken(typ, then...) }
		more := bytes.Repeat(frame(1, "x"), 10_000)
		for _, b := range map[string][]byte{
			"random bytes":               random,
			"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + strings.Repeat("x", 64) + "\r\n\r\n"),
			"another mechanism":          greeting("PLAIN"),
			"random after the greeting":  append(greeting("NULL"), random...),
			"a huge READY":               append(greeting("NULL"), 6, 0x40, 0, 0, 0, 0, 0, 0, 0),
			"a malformed READY":          append(greeting("NULL"), frame(4, "\x05READY\x0bSocket-Type\xff\xff\xff\xff")...),
			"another type":               append(greeting("NULL"), ready("PAIR")...),
			"a length of 2^62":           shaken([]byte{2, 0x40, 0, 0, 0, 0, 0, 0, 0}),
			"a length of 2^64-1":         shaken([]byte{3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
			"endless MORE":               shaken(more),
			"a message too long":         shaken([]byte{2, 0, 0, 0, 0, 0, 1, 0, 1}),
			"a command of the handshake": shaken(ready(typ)),
			"a command in a message":     shaken(frame(1, "\x01"), frame(4, "\x04PING\x00\x00")),
			"unknown flags":              shaken([]byte{0xf0, 1, 'x'}),
		} {
			c := dial(t, address)
			c.Write(b) // it may be hung up before all is sent
			requireHungUp(t, c)
			c.Close()
		}
		// Half a message, and then hang up.
		for _, b := range [][]byte{{}, {1}, {1, 5, 'a'}, append(frame(1, "alive\x00"), frame(1, "half")...)} {
			c := dial(t, address)
			c.Write(shaken(b))
			require.NoError(t, c.Close())
		}
		// PINGs without end, and nobody reads the answers.
		c := dial(t, address)
		c.Write(shaken(bytes.Repeat(frame(4, "\x04PING\x00\x00"+strings.Repeat("x", 16)), 20_000)))
		c.Close()
	}
	eventually(t, "all of the first kind are counted", func() bool { return g.Stats().Refused >= 3*14 })
	publish(t, hub, "alive", "yes", "1")
	require.Equal(t, "yes", reader.next(t)[1])
	require.EqualValues(t, 0, g.Stats().Published)
	requireGatewayWorks(t, hub, g)
}

// 1,000 silent connections at each port keep nobody out, whether they have
// shaken hands or not, and what they held is given back.
func TestThousandSilent(t *testing.T) {
	for what, shake := range map[string]bool{"before the handshake": false, "behind it": true} {
		t.Run(what, func(t *testing.T) { testThousandSilent(t, shake) })
	}
}

func testThousandSilent(t *testing.T, shake bool) {
	hub, g := start(t)
	pub, pull, rep := g.Addresses()
	requireGatewayWorks(t, hub, g)
	goroutines, before := runtime.NumGoroutine(), heap()
	var open []net.Conn
	for address, typ := range map[string]string{pub: "SUB", pull: "PUSH", rep: "DEALER"} {
		for range 1000 {
			c := dial(t, address)
			open = append(open, c)
			if shake {
				write(t, c, shaken(typ))
				_, err := io.ReadFull(c, make([]byte, 64+2))
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

// As many strangers as are allowed keep nobody out, even while others fill the
// handshakes. A connection that knows the token keeps its place. If all do, a
// newcomer is refused.
func TestStrangersMakeWay(t *testing.T) {
	t.Parallel()
	const token, most = "0123456789abcdef", 5
	_, g := start(t, withToken(token), func(o *setup) { o.MaxConnections = most })
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
		for range 100 { // these do not even shake hands
			dial(t, address)
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

// A connection that has shaken hands and said nothing yet is not pushed out by
// another address that opens more connections than are allowed.
func TestFloodFromOneAddress(t *testing.T) {
	t.Parallel()
	_, g := start(t, func(o *setup) { o.MaxConnections = 5 })
	quiet := dialPush(t, g)
	eventually(t, "it is in", func() bool { return zmqgateway.Entered(g) == 1 })
	for range 20 {
		write(t, dialFrom(t, "127.0.0.2", pullOf(g)), shaken("PUSH"))
	}
	eventually(t, "the flood makes room for itself", func() bool { return g.Stats().Refused >= 16 })
	quiet.send(t, "a", "h", "1")
	eventually(t, "it is published", func() bool { return g.Stats().Published == 1 })
}
