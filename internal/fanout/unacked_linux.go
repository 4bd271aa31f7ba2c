package fanout

import (
	"syscall"
	"unsafe"
)

// unacknowledged returns how much of what was written to a socket the other
// side has not taken yet; -1 if the system does not tell.
func unacknowledged(raw syscall.RawConn) int {
	n := int32(-1)
	raw.Control(func(fd uintptr) {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n))); e != 0 {
			n = -1
		}
	})
	return int(n)
}
