package proctest

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
)

// Process is a process that ends with its test.
type Process struct {
	Cmd *exec.Cmd

	t     testing.TB
	ended chan struct{} // closed when it has ended
	err   error         // how it ended; set before ended is closed
}

// Run starts a command and waits for it. It kills the process at the end of the
// test.
func Run(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, t: t, ended: make(chan struct{})}
	cmd.WaitDelay = basetest.Patience // for processes of its own that still hold its output
	require.NoError(t, Start(cmd))
	go func() { // ends with the process
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	return p
}

// Kill ends the process at once, like a power cut.
func (p *Process) Kill() {
	p.Cmd.Process.Kill()
	<-p.ended
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.Cmd.Process.Signal(s))
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// WaitExit waits until the process has exited, with 0.
func (p *Process) WaitExit() {
	p.t.Helper()
	select {
	case <-p.ended:
		require.NoError(p.t, p.err, "%s exits with 0", p.Cmd.Path)
	case <-time.After(3 * basetest.Patience): // a server that drains takes its time
		require.FailNow(p.t, p.Cmd.Path+" is still running")
	}
}
