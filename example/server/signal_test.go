//go:build !windows

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
)

// build builds the program for the first test that needs it: it takes seconds of a
// processor. TestMain removes it.
func build(t *testing.T) string {
	t.Helper()
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "channels-server-"); program.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(program.dir, "server"), ".").CombinedOutput()
		if err != nil {
			program.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	require.NoError(t, program.err)
	return filepath.Join(program.dir, "server")
}

var program struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if program.dir != "" {
		os.RemoveAll(program.dir)
	}
	os.Exit(code)
}

// The whole program serves, and ends without an error on SIGTERM.
func TestServerDrainsOnSIGTERM(t *testing.T) {
	binary := build(t)
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-history", "h*=10,1h", "-drain-delay", "1s")
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
		require.NoError(t, err, "the server exits with 0")
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
		"an unknown flag":    {[]string{"-nonsense"}, 2, "server: flag provided but not defined: -nonsense\nserver -h shows all flags\n"},
		"a bad history rule": {[]string{"-history", "a"}, 2, "PATTERN=SIZE,TTL"},
		"a bad address":      {[]string{"-addr", "nonsense"}, 1, "nonsense"},
		"help":               {[]string{"-h"}, 0, "-history"},
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
			if c.code == 2 { // the list of flags must not bury the error
				require.Equal(t, 2, strings.Count(string(out), "\n"), "%s", out)
			}
		})
	}
}

// A load balancer sees that the server is about to end while the server still
// serves everything. A second signal ends this delay, and a third ends the
// process.
func TestServerSaysThatItEnds(t *testing.T) {
	binary := build(t)
	start := func(args ...string) (addr string, cmd *exec.Cmd, exited chan error) {
		cmd = exec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
		log := newRecords()
		cmd.Stderr = log
		require.NoError(t, proctest.Start(cmd))
		exited = make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		t.Cleanup(func() { cmd.Process.Kill() })
		return log.wait(t, "listening")["addr"].(string), cmd, exited
	}
	await := func(exited chan error) error {
		select {
		case err := <-exited:
			return err
		case <-time.After(patience):
			require.FailNow(t, "it is still running")
			return nil
		}
	}
	draining := func(addr string) {
		require.Eventually(t, func() bool {
			code, _ := call(t, "GET", "http://"+addr+"/readyz", "") // fails the test if the port is closed
			return code == 503
		}, patience, 5*time.Millisecond)
		require.Equal(t, `{"status":"ok"}`+"\n", get(t, addr, "/healthz"))
		require.Equal(t, `{"status":"ok"}`+"\n", post(t, addr, "a", `{"header":"x","body":1}`))
		join(t, addr, "a").CloseNow()
	}
	t.Run("alone", func(t *testing.T) {
		addr, cmd, exited := start("-drain-delay", "2s")
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		draining(addr)
		require.NoError(t, await(exited))
	})
	t.Run("a second signal", func(t *testing.T) {
		addr, cmd, exited := start("-drain-delay", "10m")
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		draining(addr)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, await(exited), "the server still drains, and exits with 0")
	})
	t.Run("a third", func(t *testing.T) {
		addr, cmd, exited := start("-drain-delay", "10m", "-drain", "10m")
		for range 300 { // so that the drain takes a while
			join(t, addr, "a")
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		draining(addr)
		ended := false
		require.Eventually(t, func() bool {
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-exited:
				ended = true
			default:
			}
			return ended
		}, patience, 20*time.Millisecond)
	})
	http.DefaultClient.CloseIdleConnections()
}

// A misspelt variable is refused instead of ignored.
func TestServerRefusesMisspeltVariables(t *testing.T) {
	cmd := exec.Command(build(t), "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "CHANNELS_HISTROY=a=1,1h")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v", err)
	require.Equal(t, 2, exit.ExitCode())
	require.Contains(t, string(out), "there is no variable CHANNELS_HISTROY: a variable is CHANNELS_ and the name of a flag; did you mean CHANNELS_HISTORY?")
}
