// Package basetest holds what the tests of all packages share: how to wait, a log
// to look into, and a network that fails.
package basetest

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is how long a test waits for what has to come. A run that passes never
// waits so long.
const Patience = time.Minute

// Eventually calls ask until it returns true: after a millisecond at first, and less
// often the longer it takes, since what takes seconds would otherwise be asked for
// hundreds of times, and each look may cost a server and a connection.
func Eventually(t testing.TB, what string, ask func() bool) {
	t.Helper()
	began := time.Now()
	for !ask() {
		waited := time.Since(began)
		if waited > Patience {
			require.FailNow(t, "not within "+Patience.String()+": "+what)
		}
		time.Sleep(min(max(waited/10, time.Millisecond), 25*time.Millisecond))
	}
}

// Listen listens on a free port of loopback until the test ends.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

// IsTimeout reports whether a deadline has caused err.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
