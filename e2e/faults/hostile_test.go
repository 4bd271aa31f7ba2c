//go:build linux

package faults

import (
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// secret writes a file that only its owner can read.
func secret(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// says are what a hostile peer may begin with.
func says() []string {
	greeting := string(zmtptest.Greeting("NULL"))
	var noise [4096]byte
	rand.Read(noise[:])
	return []string{
		"", // silence
		string(noise[:]),
		"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n",
		greeting[:30],
		"\x01\x00\x06\x01free\x00\x02\x01m\x03\x00-1",                          // ZMTP 1.0: an empty identity and a message
		"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01\x02\x00\x00\x00\x01\x01", // ZMTP 2.0: a SUB that wants everything
		greeting + "\x06\x40\x00\x00\x00\x00\x00\x00\x00",                      // a command of 2^62 bytes
		greeting + "\x04\x10\x05READY\x04Type\xff\xff\xff\xff!",                // READY with a property longer than the frame
		greeting + strings.Repeat("\x01\x01x", 1000),                           // endless frames, each of which announces another one
	}
}

// shout opens n connections that send one of the above. It returns how many of
// them are still open.
func shout(t *testing.T, addr string, n int) *atomic.Int64 {
	t.Helper()
	open := &atomic.Int64{}
	var reading sync.WaitGroup
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
		reading.Wait()
	})
	for i := range n {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		conns = append(conns, c)
		open.Add(1)
		reading.Go(func() {
			all := says()
			io.WriteString(c, all[i%len(all)]) // may fail, if the replica has hung up
			io.Copy(io.Discard, c)
			open.Add(-1)
		})
	}
	return open
}
