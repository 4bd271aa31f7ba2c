//go:build !linux

package fanout

import "syscall"

// unacknowledged is -1: this system does not tell.
func unacknowledged(syscall.RawConn) int { return -1 }
