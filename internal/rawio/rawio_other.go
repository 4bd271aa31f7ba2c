//go:build !(linux || darwin) || portable

package rawio

import "errors"

// Write is not used on this system: see [Conn].
func Write(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Read is not used on this system: see [Conn].
func Read(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Tell does nothing.
func Tell() {}

const available = false

var wouldBlock = errors.New("would block")
