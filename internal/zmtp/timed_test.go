package zmtp_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// inBubble runs test with a guard after its handshake, whose rules change has
// changed, and with the peer's side of the connection. No time passes.
func inBubble(t *testing.T, change func(*zmtp.Rules), test func(t *testing.T, g *zmtp.Guard, peer net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, peer := net.Pipe()
		defer func() {
			ours.Close()
			peer.Close()
			time.Sleep(time.Minute) // the test's goroutines end
		}()
		g := zmtp.ShakenGuard(ours, zmtp.Limits{Frame: 1 << 20, Message: 1 << 20, Frames: 8}, nil)
		change(&g.Rules)
		test(t, g, peer)
	})
}

// read reads once, and returns how long that took.
func read(g *zmtp.Guard) (time.Duration, error) {
	start := time.Now()
	_, err := g.Read(make([]byte, 100))
	return time.Since(start), err
}

// A peer may be silent as long as the rules say.
func TestGuardWaitsForThePeer(t *testing.T) {
	t.Run("an impatient guard", func(t *testing.T) {
		inBubble(t, func(*zmtp.Rules) {}, func(t *testing.T, g *zmtp.Guard, _ net.Conn) {
			took, err := read(g)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, zmtp.IdleTimeout, took)
		})
	})
	t.Run("a patient one", func(t *testing.T) {
		inBubble(t, func(r *zmtp.Rules) { r.Patient = true }, func(t *testing.T, g *zmtp.Guard, peer net.Conn) {
			go func() { // ends with the write
				time.Sleep(24 * time.Hour)
				peer.Write(zmtptest.Frame(0, "x"))
			}()
			took, err := read(g)
			require.NoError(t, err)
			require.Equal(t, 24*time.Hour, took)
		})
	})
	t.Run("a patient one, with a bound", func(t *testing.T) {
		busy := 2
		inBubble(t, func(r *zmtp.Rules) {
			r.Patient, r.Silence = true, time.Minute
			r.Busy = func() bool { busy--; return busy >= 0 }
		}, func(t *testing.T, g *zmtp.Guard, _ net.Conn) {
			took, err := read(g)
			require.ErrorIs(t, err, zmtp.ErrSilent)
			require.Equal(t, 3*time.Minute, took, "twice, something waited to be sent")
		})
	})
	t.Run("within a message", func(t *testing.T) {
		inBubble(t, func(r *zmtp.Rules) { r.Patient = true }, func(t *testing.T, g *zmtp.Guard, peer net.Conn) {
			go peer.Write([]byte{0, 5, 'x'}) // ends when that is read
			_, err := read(g)
			require.NoError(t, err)
			took, err := read(g)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, zmtp.IdleTimeout, took)
		})
	})
}

// A message that trickles in has the time of Rules.Whole, and no more.
func TestGuardEndsMessagesThatTrickle(t *testing.T) {
	inBubble(t, func(r *zmtp.Rules) {
		r.Patient, r.Whole = true, &zmtp.Pace{Start: 30 * time.Second, Rate: 10}
	}, func(t *testing.T, g *zmtp.Guard, peer net.Conn) {
		go func() { // ends with the test
			for _, err := peer.Write([]byte{0, 100}); err == nil; _, err = peer.Write([]byte("x")) {
				time.Sleep(time.Second)
			}
		}()
		start := time.Now()
		var err error
		for err == nil {
			_, err = read(g)
		}
		require.ErrorIs(t, err, zmtp.ErrTooSlow)
		require.Equal(t, 40*time.Second, time.Since(start))
	})
}

// A write to a peer that takes nothing says whether the peer was heard meanwhile.
func TestGuardWritesToAStuckPeer(t *testing.T) {
	for name, heard := range map[string]bool{"that is there": true, "that may have died": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(*zmtp.Rules) {}, func(t *testing.T, g *zmtp.Guard, peer net.Conn) {
				time.Sleep(time.Hour) // since it was last heard
				if heard {
					go func() { // ends with the write
						time.Sleep(time.Second)
						peer.Write(zmtptest.Frame(0, "x"))
					}()
					go read(g) // ends when it has come
				}
				start := time.Now()
				_, err := g.Write([]byte("x"))
				require.NoError(t, err)
				err = g.Flush()
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.Equal(t, zmtp.StallTimeout, time.Since(start))
				require.Equal(t, heard, errors.Is(err, zmtp.ErrStalled), err)
			})
		})
	}
}
