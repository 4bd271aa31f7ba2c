package zmtp_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
)

// TestCrowd: which connection makes way.
func TestCrowd(t *testing.T) {
	t.Parallel()
	type crowd = zmtp.Crowd[string]
	add := func(w *crowd, name, address string) {
		w.Add(name, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	}
	fill := func(w *crowd, ip string, n int) {
		for i := range n {
			add(w, fmt.Sprint(ip, " ", i), fmt.Sprintf("%s:%d", ip, i+1))
		}
	}
	t.Run("of the address that has the most", func(t *testing.T) {
		var w crowd
		fill(&w, "10.0.0.1", 3)
		fill(&w, "10.0.0.2", 5)
		add(&w, "newcomer", "10.0.0.3:1")
		require.Equal(t, "10.0.0.2 0", w.TakeOldest())
		require.Contains(t, w.TakeAny(time.Minute), "10.0.0.2 ")
		require.Equal(t, "10.0.0.1 0", w.TakeOldest(), "now both have three")
	})
	t.Run("64 bits of IPv6 are one address, and an IPv4 address is the same in both ways", func(t *testing.T) {
		var w crowd
		add(&w, "honest", "[2001:db8:1::1]:1")
		add(&w, "one", "[2001:db8:2::1]:1")
		add(&w, "two", "[2001:db8:2::ffff:1]:1")
		require.Equal(t, "one", w.TakeOldest())
		add(&w, "v4", "10.0.0.1:1")
		add(&w, "v4 again", "[::ffff:10.0.0.1]:1")
		require.Equal(t, "v4", w.TakeOldest())
		require.Equal(t, []string{"honest", "two", "v4 again"}, w.All())
		for _, name := range []string{"honest", "two", "v4 again", "nobody"} {
			w.Remove(name)
		}
		require.Zero(t, w.Origins())
		require.Zero(t, w.Len())
	})
	t.Run("by chance, and never the newest", func(t *testing.T) {
		picked := map[string]bool{}
		for range 2_000 {
			var w crowd
			fill(&w, "10.0.0.1", 10)
			name := w.TakeAny(0)
			require.NotEqual(t, "10.0.0.1 9", name)
			picked[name] = true
		}
		require.Len(t, picked, 9)
	})
	t.Run("not within the grace, where one has had it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var w crowd
			fill(&w, "10.0.0.1", 2)
			time.Sleep(time.Second) // of the bubble
			for i := range 10 {
				add(&w, fmt.Sprint("young ", i), "10.0.0.1:1")
			}
			for range 2 {
				require.Contains(t, []string{"10.0.0.1 0", "10.0.0.1 1"}, w.TakeAny(500*time.Millisecond))
			}
			require.NotEmpty(t, w.TakeAny(500*time.Millisecond), "nobody has had it: a newcomer is let in all the same")
		})
	})
}
