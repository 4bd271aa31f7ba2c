//go:build !windows

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
)

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// The whole program: it serves, and SIGTERM ends it well.
func TestServerDrainsOnSIGTERM(t *testing.T) {
	binary := build(t)
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-history", "h*=10,1h")
	cmd.Env = append(os.Environ(), "CHANNELS_NODE=one", "CHANNELS_LOG_LEVEL=debug")
	log := newRecords()
	cmd.Stderr = log
	require.NoError(t, proctest.Start(cmd))
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })

	listening := log.wait(t, "listening")
	addr := listening["addr"].(string)
	h, plain := join(t, addr, "h1"), join(t, addr, "plain")
	require.Contains(t, post(t, addr, "h1", `{"header":"x","body":1}`), `"offset":1`)
	require.Equal(t, `{"status":"ok"}`+"\n", post(t, addr, "plain", `{"header":"x","body":2}`))
	m, err := next(h)
	require.NoError(t, err)
	require.Equal(t, uint64(1), m.Offset)
	m, err = next(plain)
	require.NoError(t, err)
	require.Equal(t, "2", string(m.Body))
	require.Contains(t, get(t, addr, "/v1/channel/h1/presence"), `{"id":"one-`, "the environment counts")
	require.Equal(t, `{"status":"ok"}`+"\n", get(t, addr, "/readyz"))

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for _, c := range []*websocket.Conn{h, plain} {
		m, err = next(c)
		require.NoError(t, err)
		require.Equal(t, "reconnect", m.Header)
		_, err = next(c)
		require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	}
	select {
	case err := <-exited:
		require.NoError(t, err, "it exits with 0")
	case <-time.After(patience):
		require.FailNow(t, "it is still running", log.String())
	}
	log.wait(t, "stopped")
}

func TestServerRefusesItsArguments(t *testing.T) {
	binary := build(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a flag that is none":    {[]string{"-nonsense"}, 2, "server: flag provided but not defined: -nonsense\nserver -h shows all flags\n"},
		"a history that is none": {[]string{"-history", "a"}, 2, "PATTERN=SIZE,TTL"},
		"an address of no use":   {[]string{"-addr", "nonsense"}, 1, "nonsense"},
		"help":                   {[]string{"-h"}, 0, "-history"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(binary, c.args...).CombinedOutput()
			code := 0
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, c.code, code, "%s", out)
			require.Contains(t, string(out), c.says)
			if c.code == 2 { // the error is not lost among all the flags
				require.Equal(t, 2, strings.Count(string(out), "\n"), "%s", out)
			}
		})
	}
}
