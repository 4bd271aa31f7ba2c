//go:build !linux

package channels

import "syscall"

// unacknowledged is -1: this system does not tell.
func unacknowledged(syscall.RawConn) int { return -1 }
