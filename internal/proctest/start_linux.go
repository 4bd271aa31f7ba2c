package proctest

import (
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// start makes the kernel kill the process when the thread that starts it ends.
// That thread ends with the test binary at the latest. A goroutine keeps it
// until the process has ended.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			await(cmd.Process.Pid)
		}
	}()
	return <-started
}

// await returns when a child has ended, and leaves its status to cmd.Wait. If
// cmd.Wait was first, there is no such child.
func await(pid int) {
	const (
		byPID  = 1          // P_PID
		exited = 4          // WEXITED
		noWait = 0x01000000 // WNOWAIT
	)
	var info [128]byte // siginfo_t
	for {
		_, _, err := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|noWait, 0, 0)
		if err != syscall.EINTR {
			return
		}
	}
}
