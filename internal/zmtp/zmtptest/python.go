package zmtptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Python returns a python3 that has libzmq's binding: the system's, or the first in
// the PATH. The test fails if there is none.
func Python(t testing.TB) string {
	t.Helper()
	require.NotEmpty(t, python(), "this test needs Debian's python3-zmq; make setup installs it")
	return python()
}

var python = sync.OnceValue(func() string {
	for _, dir := range append([]string{"/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		p := filepath.Join(dir, "python3")
		if exec.Command(p, "-c", "import zmq").Run() == nil {
			return p
		}
	}
	return ""
})
