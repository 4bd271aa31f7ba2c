//go:build (linux || darwin) && !portable

package rawio

import "syscall"

const available = true

var wouldBlock error = syscall.EAGAIN

// usualWrite and usualRead are the calls that the scheduler is told of.
func usualWrite(fd uintptr, b []byte) (n int, err error) {
	for {
		if n, err = syscall.Write(int(fd), b); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func usualRead(fd uintptr, b []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(int(fd), b); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
