//go:build !portable

package poll

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// system is an epoll of our own. The runtime has the connections in its epoll, too, and
// ours itself: so run waits like a goroutine that reads a connection, and not in a
// system call, for which the scheduler would have to find out that the processor is free.
type system struct {
	file   *os.File // the epoll's descriptor
	conn   syscall.RawConn
	armers sync.Pool
}

// rests is what wakes a connection: something to read, the end of what is sent, an error.
// It happens once, and then the connection has to be armed again.
const rests = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT

func (s *system) open() error {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // otherwise the runtime would not watch it
		syscall.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	s.file = os.NewFile(uintptr(fd), "epoll")
	if err = s.file.SetDeadline(time.Time{}); err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return errors.Join(errors.ErrUnsupported, err)
	}
	s.armers.New = func() any { return newArmer(s) }
	return nil
}

func (s *system) close() { s.file.Close() }

// run calls happened for each event until close.
func (s *system) run(happened func(number int32, used uint32)) {
	events := make([]syscall.EpollEvent, 128)
	s.conn.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events, 0)
			if err != nil && err != syscall.EINTR || err == nil && n == 0 {
				return false // it is called again when there are more
			}
			for i := range max(n, 0) {
				happened(events[i].Fd, uint32(events[i].Pad))
			}
		}
	})
}

// arm asks for the next event of a connection, which comes with these two numbers. It
// returns false if the connection is closed, or if the system refuses.
func (s *system) arm(conn syscall.RawConn, first bool, number int32, used uint32) bool {
	a := s.armers.Get().(*armer)
	defer s.armers.Put(a)
	a.op = syscall.EPOLL_CTL_MOD
	if first {
		a.op = syscall.EPOLL_CTL_ADD
	}
	a.event = syscall.EpollEvent{Events: rests, Fd: number, Pad: int32(used)}
	return conn.Control(a.ofConn) == nil && a.err == nil
}

// An armer is kept, since a closure for each call would be an allocation for each call.
// Its functions are called while the descriptors that they get cannot be closed.
type armer struct {
	op      int
	fd      int
	event   syscall.EpollEvent
	err     error
	ofConn  func(fd uintptr)
	ofEpoll func(fd uintptr)
}

func newArmer(s *system) *armer {
	a := &armer{}
	a.ofConn = func(fd uintptr) {
		a.fd = int(fd)
		if err := s.conn.Control(a.ofEpoll); err != nil {
			a.err = err
		}
	}
	a.ofEpoll = func(fd uintptr) { a.err = syscall.EpollCtl(int(fd), a.op, a.fd, &a.event) }
	return a
}
