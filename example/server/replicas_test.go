//go:build !windows

package main

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Three replicas run as in production. One is killed, then all are replaced one
// by one. A subscriber that moves along gets each message once and in order.
// GET /v1/nodes reports the state of each.
func TestReplicasAreKilledAndReplaced(t *testing.T) {
	r := redistest.Start(t)
	on := func(node string) *process {
		// Nobody is pinged: the subscriber answers no pings while replicas start.
		return launch(t, []string{"CHANNELS_MESH_KEY=" + meshKey}, "-node", node, "-drain", "100ms", "-drain-delay", "0", "-history", "h*=1000,1h",
			"-redis", "redis://"+r.Addr+"/0", "-mesh", "zmq", "-mesh-listen", "tcp://127.0.0.1:0", "-ping-period", "10m")
	}
	states := func(from *process, want map[string]string) {
		t.Helper()
		var last map[string]string
		eventually(t, fmt.Sprintf("the nodes %v", want), func() bool {
			last = nodes(t, from.addr)
			return fmt.Sprint(last) == fmt.Sprint(want)
		})
	}
	a, b, c := on("a"), on("b"), on("c")
	states(a, map[string]string{"a": "green", "b": "green", "c": "green"})

	var ws *websocket.Conn
	at, said := ":0", 0
	move := func(to *process) { // like a client, it resumes at its position
		t.Helper()
		ws = join(t, to.addr, "h", at)
	}
	say := func(through *process) {
		t.Helper()
		said++
		post(t, through.addr, "h", fmt.Sprintf(`{"header":"n","body":%d}`, said))
	}
	heard := 0
	hear := func() {
		t.Helper()
		for heard < said {
			m := receive(t, ws)
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

	require.False(t, c.Ended())
	c.Kill()
	for range 20 {
		say(a)
		say(b)
	}
	move(b)
	say(a)
	hear()
	states(a, map[string]string{"a": "green", "b": "green", "c": "red"})
	c = on("c")
	states(a, map[string]string{"a": "green", "b": "green", "c": "green"})

	all := map[string]*process{"a": a, "b": b, "c": c}
	subscribed := "b"
	for _, node := range []string{"a", "b", "c"} {
		other := map[string]string{"a": "c", "b": "a", "c": "b"}[node]
		old := all[node]
		old.Signal(syscall.SIGTERM)
		for range 10 {
			say(all[other])
		}
		old.WaitExit()
		if subscribed == node {
			subscribed = other
			move(all[subscribed])
		}
		all[node] = on(node)
		for range 10 {
			say(all[node])
		}
		hear()
	}
	states(all["a"], map[string]string{"a": "green", "b": "green", "c": "green"})
}
