//go:build (darwin || (linux && (386 || s390x || race))) && !portable

package fanout

import "syscall"

// send is write(2): the race detector has to see it, and for 386 and s390x package syscall
// has no sendto(2).
func send(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
