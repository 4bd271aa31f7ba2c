//go:build !portable

package fanout

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// muffles reports whether the system tells of what is there already when SO_RCVLOWAT
// becomes less. Linux does since 4.18.
var muffles = sync.OnceValue(func() bool {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return err == nil && since418(string(release))
})

func since418(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major > 4 || major == 4 && minor >= 18)
}

// wakeAt sets how many bytes wake a reader. Should the system refuse, it stays as it was.
func wakeAt(fd uintptr, bytes int) {
	syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
}
