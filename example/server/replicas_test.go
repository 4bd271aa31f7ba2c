//go:build !windows

package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Three replicas run as in production. One is killed, then all are replaced one
// by one. A subscriber that moves along gets each message once and in order.
// GET /v1/nodes reports the state of each.
func TestReplicasAreKilledAndReplaced(t *testing.T) {
	binary, r := build(t), redistest.Start(t)
	type replica struct {
		addr   string
		cmd    *exec.Cmd
		exited chan error
	}
	launch := func(node string) *replica {
		log := newRecords()
		cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-node", node, "-drain", "100ms", "-drain-delay", "0", "-history", "h*=1000,1h",
			"-redis", "redis://"+r.Addr+"/0", "-mesh", "zmq", "-mesh-listen", "tcp://127.0.0.1:0")
		cmd.Env, cmd.Stderr = append(os.Environ(), "CHANNELS_MESH_KEY="+meshKey), log
		require.NoError(t, proctest.Start(cmd))
		p := &replica{cmd: cmd, exited: make(chan error, 1)}
		go func() { p.exited <- cmd.Wait() }()
		t.Cleanup(func() { cmd.Process.Kill() })
		p.addr = log.wait(t, "listening")["addr"].(string)
		return p
	}
	states := func(from *replica, want map[string]string) {
		t.Helper()
		var last map[string]string
		redistest.Eventually(t, fmt.Sprintf("the nodes %v", want), func() bool {
			last = nodes(t, from.addr)
			return fmt.Sprint(last) == fmt.Sprint(want)
		})
	}
	a, b, c := launch("a"), launch("b"), launch("c")
	states(a, map[string]string{"a": "green", "b": "green", "c": "green"})

	var ws *websocket.Conn
	at, said := ":0", 0
	move := func(to *replica) { // like a client, it resumes at its position
		t.Helper()
		ws = join(t, to.addr, "h", at)
	}
	say := func(through *replica) {
		t.Helper()
		said++
		post(t, through.addr, "h", fmt.Sprintf(`{"header":"n","body":%d}`, said))
	}
	heard := 0
	hear := func() {
		t.Helper()
		for heard < said {
			m, err := next(ws)
			require.NoError(t, err)
			if m.Header != "n" {
				continue
			}
			heard++
			require.Equal(t, fmt.Sprint(heard), string(m.Body))
			require.EqualValues(t, heard, m.Offset)
			at = fmt.Sprintf("%s:%d", m.Epoch, m.Offset)
		}
	}
	move(c)
	for range 20 {
		say(a)
		say(b)
	}
	hear()

	require.NoError(t, c.cmd.Process.Signal(syscall.SIGKILL))
	<-c.exited
	for range 20 {
		say(a)
		say(b)
	}
	move(b)
	say(a)
	hear()
	states(a, map[string]string{"a": "green", "b": "green", "c": "red"})
	c = launch("c")
	states(a, map[string]string{"a": "green", "b": "green", "c": "green"})

	all := map[string]*replica{"a": a, "b": b, "c": c}
	on := "b"
	for _, node := range []string{"a", "b", "c"} {
		other := map[string]string{"a": "c", "b": "a", "c": "b"}[node]
		old := all[node]
		require.NoError(t, old.cmd.Process.Signal(syscall.SIGTERM))
		for range 10 {
			say(all[other])
		}
		select {
		case err := <-old.exited:
			require.NoError(t, err, "the server exits with 0")
		case <-time.After(patience):
			require.FailNow(t, "it is still running")
		}
		if on == node {
			on = other
			move(all[on])
		}
		all[node] = launch(node)
		for range 10 {
			say(all[node])
		}
		hear()
	}
	states(all["a"], map[string]string{"a": "green", "b": "green", "c": "green"})
}
