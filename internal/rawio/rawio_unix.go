//go:build (darwin || (linux && (386 || s390x || race))) && !portable

package rawio

// Write is write(2), and returns [syscall.EAGAIN] if it would have to wait: the race
// detector has to see it, and for 386 and s390x package syscall has no sendto(2).
func Write(fd uintptr, b []byte) (int, error) { return usualWrite(fd, b) }

// Read is read(2), and returns [syscall.EAGAIN] if it would have to wait. 0 without an
// error is the end, if b has room.
func Read(fd uintptr, b []byte) (int, error) { return usualRead(fd, b) }
