//go:build !386 && !s390x && !portable && !race

package rawio

import (
	"syscall"
	"unsafe"
)

// A longer text goes the usual way: a garbage collection that begins would have to wait
// for it.
const (
	longWrite = 16 << 10 // bytes
	longRead  = 64 << 10 // bytes; mostly there are fewer than there is room for
)

// Write is write(2) for a socket, and returns [ErrWouldBlock] in place of waiting.
func Write(fd uintptr, b []byte) (int, error) {
	if len(b) > longWrite {
		return usualWrite(fd, b)
	}
	return call(syscall.SYS_SENDTO, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// Read is read(2) for a socket, and returns [ErrWouldBlock] in place of waiting. 0 without
// an error is the end, if b has room.
func Read(fd uintptr, b []byte) (int, error) {
	if len(b) > longRead {
		return usualRead(fd, b)
	}
	return call(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT)
}

// Tell wakes the monitor thread if it sleeps, by a system call that does nothing but that
// the scheduler is told of.
func Tell() { syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0) }

func call(number, fd uintptr, b []byte, flags uintptr) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}
