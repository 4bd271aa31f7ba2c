package redistest_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A port stays reserved until the test ends, in all processes, even if its
// server does not run.
func TestPortsAreGivenOnce(t *testing.T) {
	other := ""
	t.Run("one", func(t *testing.T) {
		other = "@channels-test-port-" + strconv.Itoa(redistest.FreePort(t))
		_, err := net.Listen("unix", other)
		require.Error(t, err, "it is taken")
	})
	l, err := net.Listen("unix", other)
	require.NoError(t, err, "it is given back")
	defer l.Close()
}

// A killed test binary has no chance to end its servers.
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
