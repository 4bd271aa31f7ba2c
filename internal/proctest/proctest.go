// Package proctest starts processes for tests. On Linux they end with the test
// binary however it ends: a test deadline that panics, and SIGKILL, run no
// cleanups.
package proctest

import "os/exec"

// Start starts a command. The caller waits for it, as after cmd.Start.
func Start(cmd *exec.Cmd) error { return start(cmd) }
