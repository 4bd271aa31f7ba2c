package zmqmesh_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnnouncedHere: two replicas on different machines that both announce a
// loopback address dial themselves. The log says why they are alone.
func TestAnnouncedHere(t *testing.T) {
	t.Parallel()
	var log logbook
	a := newMesh(t, "a", withLog(&log))
	a.SetPeers(map[string]string{"b": a.Address()})
	eventually(t, "it is logged", func() bool { return log.Has("an address that leads back to this one") })
}

// TestLoggedOncePerCause: if a replica is away, each cause is logged once and not
// with each attempt, although each attempt comes from another port.
func TestLoggedOncePerCause(t *testing.T) {
	t.Parallel()
	var log logbook
	a := newMesh(t, "a", withLog(&log))
	b := newStage(t)
	a.SetPeers(map[string]string{"b": b.address()})
	resets := map[string]bool{}
	for i := range 6 {
		c := accept(t, b.ln)
		_, err := io.ReadFull(c, make([]byte, 64)) // the greeting
		require.NoError(t, err)
		reset := i%2 == 0
		if reset {
			require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		}
		require.NoError(t, c.Close())
		eventually(t, "it is told", func() bool {
			err := a.Status().Peers[0].Err
			if !reset {
				return strings.HasSuffix(err, "EOF")
			}
			if !strings.Contains(err, "reset by peer") || resets[err] {
				return false
			}
			resets[err] = true
			return true
		})
	}
	require.Equal(t, 2, log.Count("link down"))
}

// TestSilenceIsLoggedOnce: a black hole, too, is logged once, although each
// attempt lasts as long as a link that has held.
func TestSilenceIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(b *stage){
		"says nothing":    func(b *stage) { accept(b.t, b.ln) },
		"answers nothing": func(b *stage) { b.shake() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logbook
			a := newMesh(t, "a", withLog(&log))
			b := newStage(t)
			a.SetPeers(map[string]string{"stage": b.address()})
			for range 3 { // by the third attempt, the first two were logged or not
				take(b)
			}
			require.Equal(t, 1, log.Count("link down"))
		})
	}
}
