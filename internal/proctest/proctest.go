// Package proctest starts processes for tests. On Linux they end with the test
// binary however that ends: a deadline that panics and SIGKILL run no cleanups.
package proctest

import "os/exec"

// Start starts a command. Waiting for it is the caller's, as after cmd.Start.
func Start(cmd *exec.Cmd) error { return start(cmd) }
