//go:build linux && !386 && !s390x && !portable && !race

package rawio_test

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/rawio"
)

// addressVariable makes the test binary a process that connects there, and writes a byte
// a while later.
const addressVariable = "RAWIO_TEST_ADDRESS"

func init() {
	if to := os.Getenv(addressVariable); to != "" {
		c, err := net.Dial("tcp", to)
		if err != nil {
			panic(err)
		}
		time.Sleep(300 * time.Millisecond) // the point: the other process is idle meanwhile
		c.Write([]byte("x"))
		os.Exit(0)
	}
}

// A goroutine that waited for a socket, and then computes for long, is interrupted for
// others: Tell has woken the monitor thread, which sleeps while the program is idle. The
// byte comes from another process, since here a timer would wake that thread, too.
func TestTellWakesTheMonitor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	other := exec.Command(self)
	other.Env = append(os.Environ(), addressVariable+"="+ln.Addr().String())
	require.NoError(t, other.Start())
	defer other.Wait()
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close()

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	room := make([]byte, 1)
	require.NoError(t, raw(t, c).Read(func(fd uintptr) bool {
		_, err = rawio.Read(fd, room)
		return err != syscall.EAGAIN
	}))
	rawio.Tell()
	var ran atomic.Bool
	go ran.Store(true)
	for end := time.Now().Add(5 * time.Second); !ran.Load() && time.Now().Before(end); { // computes
	}
	require.NoError(t, err)
	require.True(t, ran.Load(), "the other goroutine has not run in 5 s")
}
