//go:build (darwin || (linux && (386 || s390x || race))) && !portable

package rawio

// Write is write(2), and returns [ErrWouldBlock] in place of waiting. The scheduler is told:
// the race detector has to see the call, for 386 and s390x package syscall has no
// sendto(2), and macOS wants all calls to go through its library.
func Write(fd uintptr, b []byte) (int, error) { return usualWrite(fd, b) }

// Read is read(2), and returns [ErrWouldBlock] in place of waiting. 0 without an error is
// the end, if b has room.
func Read(fd uintptr, b []byte) (int, error) { return usualRead(fd, b) }

// Tell does nothing, since the scheduler is told of all calls.
func Tell() {}
