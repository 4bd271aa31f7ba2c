// Package netns gives tests network namespaces of their own.
package netns

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
)

// Host is a network namespace, as if it were another computer. A process that
// does nothing else keeps it until the test ends. 0 is the namespace of the
// test itself.
type Host int

// New makes a namespace, which has only a loopback interface that is down.
func New(t *testing.T) Host {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, proctest.Start(cmd))
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	// It is in its namespace once it has echoed a line.
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)
	_, err = io.ReadFull(out, make([]byte, 1))
	require.NoError(t, err)
	return Host(cmd.Process.Pid)
}

// Path returns the file that stands for the namespace.
func (h Host) Path() string { return fmt.Sprintf("/proc/%d/ns/net", h) }

// Enter returns the command prefix that runs a program in the namespace.
func (h Host) Enter() []string {
	if h == 0 {
		return nil
	}
	return []string{"nsenter", "--net=" + h.Path()}
}

// IP runs commands of ip in the namespace.
func (h Host) IP(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		args := slices.Concat(h.Enter(), []string{"ip"}, strings.Fields(c))
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
}
