//go:build !linux && !darwin

package channels

import (
	"errors"
	"sync"
	"syscall"
)

var errWouldBlock = errors.New("would block")

// tryWrite is not used on this system: every connection that has something
// to write gets a goroutine for as long as it does.
type tryWrite struct{}

func (*tryWrite) init() {}

func (*tryWrite) write(syscall.RawConn, []byte) (int, error) { return 0, errWouldBlock }

const canTry = false

type chunk struct{}

var chunks sync.Pool

func (*conn) tryRead(uintptr) bool { return true }
