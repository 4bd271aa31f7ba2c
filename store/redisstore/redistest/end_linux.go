package redistest

import (
	"os/exec"
	"syscall"
)

// endWithThread makes the kernel kill the process when the thread that starts
// it ends. That thread ends with the test binary at the latest.
func endWithThread(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
