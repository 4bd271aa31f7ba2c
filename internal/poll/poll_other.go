//go:build !linux || portable

package poll

import (
	"errors"
	"syscall"
)

// system is nothing here: each connection has a goroutine.
type system struct{}

func (system) open() error { return errors.ErrUnsupported }

func (system) close() {}

func (system) run(happened func(number int32, used uint32)) {}

func (system) arm(_ syscall.RawConn, first bool, number int32, used uint32) bool { return false }
