package redistest_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A test binary that is killed has no chance to end its servers.
func TestServersEndWithAKilledTest(t *testing.T) {
	if os.Getenv("REDISTEST_START") != "" {
		os.Stdout.WriteString("at " + redistest.Start(t).Addr + "\n")
		select {} // until it is killed
	}
	cmd := exec.Command(os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "REDISTEST_START=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr := ""
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if line := lines.Text(); len(line) > 3 && line[:3] == "at " {
			addr = line[3:]
		}
	}
	dial := func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	require.True(t, dial(), "it runs")
	require.NoError(t, cmd.Process.Kill())
	redistest.Eventually(t, "the server has ended, too", func() bool { return !dial() })
}
