//go:build !(linux || darwin) || portable

package fanout

import (
	"syscall"

	"github.com/channels-go/channels/internal/rawio"
)

// tryWrite is not used on this system: a connection has a goroutine for as long
// as something waits for it.
type tryWrite struct{}

func (*tryWrite) init() {}

func (*tryWrite) write(syscall.RawConn, []byte) (int, error) { return 0, rawio.ErrWouldBlock }
