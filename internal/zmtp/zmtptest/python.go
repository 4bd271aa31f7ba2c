package zmtptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Python returns the first python3 that has libzmq's binding. The test fails if
// there is none.
func Python(t testing.TB) string {
	t.Helper()
	require.NotEmpty(t, python(), "this test needs Debian's python3-zmq; make setup installs it")
	return python()
}

var python = sync.OnceValue(func() string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		p := filepath.Join(dir, "python3")
		if exec.Command(p, "-c", "import zmq").Run() == nil {
			return p
		}
	}
	return ""
})
