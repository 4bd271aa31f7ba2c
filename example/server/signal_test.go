//go:build !windows

package main

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/proctest"
)

// asProgram is the variable that makes the test binary run the program.
const asProgram = "SERVER_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command makes the command that runs the program. env has lines NAME=VALUE.
func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), asProgram+"=1"), env...)
	return cmd
}

// A process is the whole program.
type process struct {
	*proctest.Process
	addr string
	log  *records
}

// launch runs the program until the test ends.
func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	cmd := command(env, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	log := new(records)
	cmd.Stderr = log
	p := proctest.Run(t, cmd)
	return &process{p, log.wait(t, "listening")["addr"].(string), log}
}

// The whole program serves, and ends without an error on SIGTERM.
func TestServerDrainsOnSIGTERM(t *testing.T) {
	p := launch(t, []string{"CHANNELS_NODE=one", "CHANNELS_LOG_LEVEL=debug"}, "-history", "h*=10,1h", "-drain-delay", "1s")
	addr := p.addr
	h, plain := join(t, addr, "h1"), join(t, addr, "plain")
	require.Contains(t, post(t, addr, "h1", `{"header":"x","body":1}`), `"offset":1`)
	require.Equal(t, `{"status":"ok"}`+"\n", post(t, addr, "plain", `{"header":"x","body":2}`))
	m := receive(t, h)
	require.Equal(t, uint64(1), m.Offset)
	m = receive(t, plain)
	require.Equal(t, "2", string(m.Body))
	require.Contains(t, get(t, addr, "/v1/channel/h1/presence"), `{"id":"one-`, "the environment counts")
	require.Equal(t, `{"status":"ok"}`+"\n", get(t, addr, "/readyz"))

	p.Signal(syscall.SIGTERM)
	for _, c := range []*websocket.Conn{h, plain} {
		m = receive(t, c)
		require.Equal(t, "reconnect", m.Header)
		_, err := webtest.Next(c)
		require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	}
	p.WaitExit()
	p.log.wait(t, "stopped")
}

func TestServerRefusesItsArguments(t *testing.T) {
	for name, c := range map[string]struct {
		env, args []string
		code      int
		says      string
	}{
		"an unknown flag":    {nil, []string{"-nonsense"}, 2, "server: flag provided but not defined: -nonsense\nserver -h shows all flags\n"},
		"a bad history rule": {nil, []string{"-history", "a"}, 2, "PATTERN=SIZE,TTL"},
		"a bad address":      {nil, []string{"-addr", "nonsense"}, 1, "nonsense"},
		"help":               {nil, []string{"-h"}, 0, "-history"},
		"a misspelt variable": {[]string{"CHANNELS_HISTROY=a=1,1h"}, nil, 2,
			"there is no variable CHANNELS_HISTROY: a variable is CHANNELS_ and the name of a flag; did you mean CHANNELS_HISTORY?"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(c.env, c.args...)
			out, _ := cmd.CombinedOutput() // its error is the code
			require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%s", out)
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
		p := launch(t, nil, "-drain-delay", "2s")
		p.Signal(syscall.SIGTERM)
		draining(p.addr)
		p.WaitExit()
	})
	t.Run("a second signal", func(t *testing.T) {
		p := launch(t, nil, "-drain-delay", "10m")
		p.Signal(syscall.SIGTERM)
		draining(p.addr)
		p.Signal(syscall.SIGTERM)
		p.WaitExit() // after it has drained
	})
	t.Run("a third", func(t *testing.T) {
		p := launch(t, nil, "-drain-delay", "10m", "-drain", "10m")
		for range 300 { // so that the drain takes a while
			join(t, p.addr, "a")
		}
		p.Signal(syscall.SIGTERM)
		draining(p.addr)
		require.Eventually(t, func() bool {
			p.Cmd.Process.Signal(syscall.SIGTERM)
			return p.Ended()
		}, patience, 20*time.Millisecond)
	})
	http.DefaultClient.CloseIdleConnections()
}
