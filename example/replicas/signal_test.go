//go:build !windows

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
)

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// started runs the whole program and returns its address and a function that
// interrupts it and returns what else it has printed.
func started(t *testing.T, args ...string) (address string, interrupt func() string) {
	t.Helper()
	cmd := command(append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	var stdout, stderr basetest.Log
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p := proctest.Run(t, cmd)
	last := ""
	basetest.Eventually(t, "the program prints its addresses", func() bool {
		last = stdout.Line("#token=")
		return last != ""
	})
	return addressIn(stdout.String()), func() string {
		t.Helper()
		p.Signal(os.Interrupt)
		p.WaitExit()
		_, more, _ := strings.Cut(stdout.String(), last)
		return more + stderr.String()
	}
}

// A client that does not answer the close frame does not keep the program from
// ending without an error.
func TestInterruptWithAClientThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	a, interrupt := started(t, "-n", "1")
	ready(t, a, 1)
	http.DefaultClient.CloseIdleConnections()
	ws, err := net.Dial("tcp", a)
	require.NoError(t, err)
	defer ws.Close()
	_, err = io.WriteString(ws, "GET /channel/lobby/ HTTP/1.1\r\nHost: "+a+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, ws.SetReadDeadline(time.Now().Add(patience)))
	res, err := http.ReadResponse(bufio.NewReader(ws), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	require.Empty(t, interrupt())
}

// Neither does a client that has sent nothing.
func TestInterruptWithASilentClient(t *testing.T) {
	t.Parallel()
	a, interrupt := started(t, "-n", "1")
	ready(t, a, 1)
	http.DefaultClient.CloseIdleConnections()
	silent, err := net.Dial("tcp", a)
	require.NoError(t, err)
	defer silent.Close()
	require.Empty(t, interrupt())
}

// The log says which replica was killed, once, although a stream breaks with it.
func TestAKilledReplicaIsLogged(t *testing.T) {
	t.Parallel()
	a, interrupt := started(t, "-n", "1")
	ready(t, a, 1)
	pid := states(t, a)[0].PID
	req, err := http.NewRequest("GET", "http://"+a+"/channel/lobby/", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	stream, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer stream.Body.Close()
	require.Equal(t, http.StatusOK, stream.StatusCode)
	wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/replicas/1/kill")
	_, err = io.Copy(io.Discard, stream.Body)
	require.Error(t, err)
	http.DefaultClient.CloseIdleConnections()
	lines := strings.Split(strings.TrimSpace(interrupt()), "\n")
	require.Len(t, lines, 1, "%q", lines)
	require.Contains(t, lines[0], fmt.Sprintf("replica-1 (pid %d) has ended: signal: killed", pid))
}

// While Redis is down, the hub logs it. The Redis client and the balancer's
// probes do not log it again and again.
func TestRedisDownIsLoggedOnce(t *testing.T) {
	t.Parallel()
	none := basetest.Listen(t)
	require.NoError(t, none.Close())
	a, interrupt := started(t, "-n", "1", "-redis", "redis://"+none.Addr().String()+"/0")
	require.Eventually(t, func() bool { // the hub has tried Redis
		res, err := http.Get("http://" + a + "/v1/channel/lobby/history")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusServiceUnavailable
	}, patience, 20*time.Millisecond)
	http.DefaultClient.CloseIdleConnections()
	said := interrupt()
	require.Contains(t, said, "the store fails")
	require.NotContains(t, said, "pool.go")
	require.NotContains(t, said, "/readyz")
}

func TestArgumentsAreRefused(t *testing.T) {
	cmd := command("-n", "1", "hush")
	out, _ := cmd.CombinedOutput() // its error is the code
	require.Equal(t, 2, cmd.ProcessState.ExitCode())
	require.Equal(t, "replicas: unexpected argument; only flags are allowed, see -h\n", string(out))
}
