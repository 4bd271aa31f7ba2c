//go:build linux

package faults

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// secret writes a file that only its owner can read.
func secret(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// greeting returns the beginning of ZMTP 3.0 with the mechanism NULL.
func greeting() []byte {
	b := make([]byte, 64)
	b[0], b[9], b[10] = 0xff, 0x7f, 3
	copy(b[12:], "NULL")
	return b
}

// says are what a hostile peer may begin with.
var says = []func() []byte{
	func() []byte { return nil }, // silence
	func() []byte {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return b
	},
	func() []byte { return []byte("GET / HTTP/1.1\r\nHost: mesh\r\n\r\n") },
	func() []byte { return greeting()[:30] },
	func() []byte { // ZMTP 1.0: an empty identity and a message
		return []byte("\x01\x00\x06\x01free\x00\x02\x01m\x03\x00-1")
	},
	func() []byte { // ZMTP 2.0: a SUB that wants everything
		return []byte("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01\x02\x00\x00\x00\x01\x01")
	},
	func() []byte { // a command of 2^62 bytes
		return append(greeting(), 0x06, 0x40, 0, 0, 0, 0, 0, 0, 0)
	},
	func() []byte { // READY with a property longer than the frame
		return append(greeting(), "\x04\x10\x05READY\x04Type\xff\xff\xff\xff!"...)
	},
	func() []byte { // endless frames, each of which announces another one
		b := greeting()
		for range 1000 {
			b = append(b, 1, 1, 'x')
		}
		return b
	},
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
			c.Write(says[i%len(says)]()) // may fail, if the replica has hung up
			io.Copy(io.Discard, c)
			open.Add(-1)
		})
	}
	return open
}
