package proctest_test

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/proctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A killed test binary has no chance to end its processes.
func TestProcessEndsWithAKilledTest(t *testing.T) {
	if os.Getenv("PROCTEST_START") != "" { // its child keeps the pipe to the test open
		child := exec.Command("sh", "-c", "echo runs; exec sleep 600")
		child.Stdout = os.Stderr
		require.NoError(t, proctest.Start(child))
		child.Wait()
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), "PROCTEST_START=1")
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "runs\n", line)
	require.NoError(t, cmd.Process.Kill())
	_, err = out.ReadString('\n')
	require.Error(t, err, "the child has ended, so the pipe is closed")
	require.Error(t, cmd.Wait())
}

func TestStatusIsLeftToTheCaller(t *testing.T) {
	cmd := exec.Command("sh", "-c", "exit 7")
	require.NoError(t, proctest.Start(cmd))
	require.Error(t, cmd.Wait())
	require.Equal(t, 7, cmd.ProcessState.ExitCode())
	require.ErrorIs(t, proctest.Start(exec.Command("/nowhere")), os.ErrNotExist)
}
