package basetest

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// Promise has a test that fails log what is promised. If the test takes longer than
// limit, the test binary ends with a dump of all goroutines.
func Promise(t testing.TB, explain string, limit time.Duration) {
	watchdog := time.AfterFunc(limit, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s hangs: %s\n\n%s", t.Name(), explain, buf[:runtime.Stack(buf, true)]))
	})
	t.Cleanup(func() {
		watchdog.Stop()
		if t.Failed() {
			t.Logf("the promise: %s", explain)
		}
	})
}
