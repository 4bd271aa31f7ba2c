package redistest

import (
	"os/exec"
	"syscall"
)

// endWithThread has the kernel kill the process when the thread that starts it
// ends, as it does at the latest with the test binary.
func endWithThread(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
