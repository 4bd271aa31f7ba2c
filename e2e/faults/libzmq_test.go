//go:build linux

package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// strangers connects sockets of libzmq, with its mechanism NULL, to the
// addresses in sys.argv, again whenever they are closed. They subscribe to
// everything, and send what a replica's clients would notice. Once each replica
// has turned it away, the program says so, goes on until its input ends, and
// prints what it has seen.
const strangers = `
import collections, json, sys, zmq
from zmq.utils.monitor import recv_monitor_message
context, poller = zmq.Context(), zmq.Poller()
poller.register(0, zmq.POLLIN)
seen, sockets, said = collections.Counter(), {}, False
over = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
def open(kind, address):
    s = context.socket(getattr(zmq, kind))
    s.linger = 0
    try: monitor = s.get_monitor_socket()
    except zmq.ZMQError: s.close(); raise
    if kind == "SUB": s.subscribe(b"")
    s.connect(address)
    if kind == "XSUB": s.send(b"\x01")
    sockets[monitor] = s, kind, address
    poller.register(monitor, zmq.POLLIN)
wanted = [(kind, address) for kind in ("SUB", "XSUB", "PUB", "PUSH") for address in sys.argv[1:]]
closed = list(wanted)
while True:
    while closed:
        try: open(*closed[-1])
        except zmq.ZMQError: break # libzmq closes sockets in its own time, and has many of them open until then
        closed.pop()
    ready = dict(poller.poll(20))
    if 0 in ready: break
    for monitor in [m for m in sockets if m in ready]:
        s, kind, address = sockets[monitor]
        event = recv_monitor_message(monitor)["event"]
        if event & zmq.EVENT_HANDSHAKE_SUCCEEDED: seen["let in"] += 1
        if event & over:
            seen[kind + " " + address] += 1
            del sockets[monitor]
            poller.unregister(monitor)
            s.disable_monitor()
            s.close()
            monitor.close()
            closed.append((kind, address))
    for s, kind, address in sockets.values():
        try:
            if kind in ("SUB", "XSUB"):
                s.recv_multipart(zmq.NOBLOCK)
                seen["heard"] += 1
            else:
                for channel in (b"free\0", b"keep\0"): s.send_multipart([channel, b"m", b"-1"], zmq.NOBLOCK)
        except zmq.Again: pass
    if not said and all(seen[kind + " " + address] for kind, address in wanted):
        said = True
        print("turned away by each", flush=True)
print(json.dumps(seen), flush=True)
context.destroy(0)
`

// ZeroMQ's own sockets are not replicas. However often they connect to the
// ports of the mesh, they receive and deliver nothing, and the replicas lose
// none of each other's messages.
func TestSocketsOfLibzmqAtTheMeshPorts(t *testing.T) {
	t.Parallel()
	all := three(t, redistest.Start(t), quiet)
	args := []string{"-c", strangers}
	for _, r := range all {
		args = append(args, "tcp://"+r.mesh)
	}
	c := check(t, all, 6, 4, *pace)
	f := listen(t, all[1], "free")
	f.publish(all[0])
	c.more(100)
	held, before := all[0].usage(), map[string]node{}
	for _, r := range all {
		before[r.name] = r.nodes()[r.name]
	}

	began := time.Now()
	cmd := exec.Command(zmtptest.Python(t), args...)
	var out basetest.Log
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	libzmq := proctest.Run(t, cmd)
	eventually(t, "each socket is turned away by each replica", func() bool {
		f.publish(all[0])
		return strings.Contains(out.String(), "turned away by each")
	})
	for range 200 {
		f.publish(all[0])
	}
	c.more(200)
	in.Close()
	libzmq.WaitExit()

	seen := map[string]int{}
	_, report, _ := strings.Cut(out.String(), "\n")
	require.NoError(t, json.Unmarshal([]byte(report), &seen), report)
	require.Zero(t, seen["heard"], "a message for replicas was delivered to a stranger")
	require.Zero(t, seen["let in"])
	green(t, all...)
	for _, r := range all {
		now, then := r.nodes()[r.name].Mesh, before[r.name].Mesh
		require.GreaterOrEqual(t, now.Refused-then.Refused, 4, "%s counts the refused connections", r.name)
		require.Equal(t, then.Lost, now.Lost, "%s has lost packets", r.name)
		require.Equal(t, then.Dropped, now.Dropped, "%s has dropped packets", r.name)
		lines := strings.Count(r.log.String(), "refused a connection")
		require.Positive(t, lines)
		require.LessOrEqual(t, lines, int(time.Since(began).Seconds())+2, "at most one line a second")
	}
	c.verify()
	all[0].back(held)
	t.Logf("turned away: %v", seen)
}
