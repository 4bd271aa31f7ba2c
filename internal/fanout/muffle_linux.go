//go:build !portable

package fanout

import "syscall"

// wakeAt sets how many bytes wake a reader. Should the system refuse, it stays as it was.
func wakeAt(fd uintptr, bytes int) {
	syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
}
