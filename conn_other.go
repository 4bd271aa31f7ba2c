//go:build !(linux || darwin) || portable

package channels

import (
	"sync"
	"syscall"
)

type chunk struct{}

var chunks sync.Pool

// try is not used on this system: the library waits for what comes.
func (*wire) try(syscall.RawConn, bool) (bool, error) { return true, nil }

// tryRead is not used either: nothing rests.
func (*conn) tryRead(syscall.RawConn, bool, bool) ([]byte, *chunk, error) { return nil, nil, nil }
