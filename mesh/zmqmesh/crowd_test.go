package zmqmesh_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// dialFrom connects from an address of this machine's loopback.
func dialFrom(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(to, "tcp://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// TestFloodFromOneAddress: who is shaking hands is not pushed out by another
// address that opens more connections than may shake hands.
func TestFloodFromOneAddress(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "m"))
	const few, more = 50, 200
	// On a busy machine, the flood takes longer than a handshake may: then again.
	eventually(t, "who is slow gets in", func() bool {
		began, before := time.Now(), m.Status().Refused
		var slow []net.Conn
		for range few {
			slow = append(slow, dialFrom(t, "127.0.0.1", m.Address()))
		}
		for range zmqmesh.MaxShaking - few + more {
			dialFrom(t, "127.0.0.2", m.Address())
		}
		eventually(t, "the flood makes room for itself", func() bool { return m.Status().Refused >= before+more })
		for i, c := range slow {
			if _, err := zmqmesh.Shake(c, fmt.Sprint("slow-", i), 7, nil, false); err != nil {
				require.Greater(t, time.Since(began), zmqmesh.ShakeTimeout, err)
				return false
			}
		}
		return true
	})
}

// TestGatewayFloodFromOneAddress: neither is one that has shaken hands, and has
// not said anything yet.
func TestGatewayFloodFromOneAddress(t *testing.T) {
	t.Parallel()
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) { o.MaxConnections = 5 })
	_, pull, _ := g.Addresses()
	quiet := dialSocket(t, pull, zmq4.Push)
	eventually(t, "it is in", func() bool { return zmqmesh.Entered(g) == 1 })
	for range 20 {
		c := dialFrom(t, "127.0.0.2", pull)
		_, err := c.Write(append(greeting("NULL"), readyOf("PUSH")...))
		require.NoError(t, err)
	}
	eventually(t, "the flood makes room for itself", func() bool { return g.Stats().Refused >= 16 })
	quiet.send(t, "a", "h", "1")
	eventually(t, "it is published", func() bool { return g.Stats().Published == 1 })
}

// TestCrowd: who makes way.
func TestCrowd(t *testing.T) {
	t.Parallel()
	fill := func(w *zmqmesh.Crowd, ip string, n int) {
		for i := range n {
			w.Add(fmt.Sprint(ip, " ", i), fmt.Sprintf("%s:%d", ip, i+1))
		}
	}
	t.Run("of the address that has the most", func(t *testing.T) {
		var w zmqmesh.Crowd
		fill(&w, "10.0.0.1", 3)
		fill(&w, "10.0.0.2", 5)
		w.Add("newcomer", "10.0.0.3:1")
		require.Equal(t, "10.0.0.2 0", w.TakeOldest())
		require.Contains(t, w.TakeAny(time.Minute), "10.0.0.2 ")
		require.Equal(t, "10.0.0.1 0", w.TakeOldest(), "now both have three")
	})
	t.Run("64 bits of IPv6 are one address, and an IPv4 address is the same in both ways", func(t *testing.T) {
		var w zmqmesh.Crowd
		w.Add("honest", "[2001:db8:1::1]:1")
		w.Add("one", "[2001:db8:2::1]:1")
		w.Add("two", "[2001:db8:2::ffff:1]:1")
		require.Equal(t, "one", w.TakeOldest())
		w.Add("v4", "10.0.0.1:1")
		w.Add("v4 again", "[::ffff:10.0.0.1]:1")
		require.Equal(t, "v4", w.TakeOldest())
		for _, name := range []string{"honest", "two", "v4 again", "nobody"} {
			w.Remove(name)
		}
		require.Zero(t, w.Origins())
	})
	t.Run("by chance, and never the newest", func(t *testing.T) {
		picked := map[string]bool{}
		for range 2_000 {
			var w zmqmesh.Crowd
			fill(&w, "10.0.0.1", 10)
			name := w.TakeAny(0)
			require.NotEqual(t, "10.0.0.1 9", name)
			picked[name] = true
		}
		require.Len(t, picked, 9)
	})
	t.Run("not within the grace, where one has had it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var w zmqmesh.Crowd
			fill(&w, "10.0.0.1", 2)
			time.Sleep(time.Second) // of the bubble
			for i := range 10 {
				w.Add(fmt.Sprint("young ", i), "10.0.0.1:1")
			}
			for range 2 {
				require.Contains(t, []string{"10.0.0.1 0", "10.0.0.1 1"}, w.TakeAny(500*time.Millisecond))
			}
			require.NotEmpty(t, w.TakeAny(500*time.Millisecond), "nobody has had it: a newcomer is let in all the same")
		})
	})
}
