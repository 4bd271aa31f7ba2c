// Package rawio reads from and writes to sockets that do not block, by system calls that
// Go's scheduler is not told of.
//
// To tell it costs more than the call where little else happens: a program that was idle
// has its monitor thread woken by each such call, and a call that takes longer than 20 µs
// may give the processor to another thread. A fan-out to 1,000 sockets takes a sixth less
// of the processor without that, and a replica that gets and delivers 1,000 messages a
// second a quarter less.
//
// The price: while the monitor thread sleeps, until the next timer at the latest, nobody
// interrupts a goroutine that computes for long. So these calls are for goroutines after
// which only the hub's own code runs, and [Tell] comes before code of the app that they
// wake. Also, a garbage collection cannot begin during such a call, even if the system
// holds it up.
package rawio

import (
	"net"
	"syscall"
)

// ErrWouldBlock says that nothing could be written, or that nothing has come.
var ErrWouldBlock = wouldBlock

// Conn returns the descriptor of a connection that Read and Write can use, or nil if it
// has none: TLS, what an app has wrapped around a connection, or any on a system whose
// calls are not known here.
func Conn(c net.Conn) (syscall.RawConn, error) {
	if available {
		switch c := c.(type) {
		case *net.TCPConn:
			return c.SyscallConn()
		case *net.UnixConn:
			return c.SyscallConn()
		}
	}
	return nil, nil
}
