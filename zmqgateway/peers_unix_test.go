//go:build unix

package zmqgateway_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/zmqgateway"
)

// A SUB socket that subscribes by the commands of ZMTP 3.1, with unknown commands
// in between, gets what it asks for until it cancels.
func TestSubscribeCommands(t *testing.T) {
	t.Parallel()
	hub, g := start(t, func(o *setup) { o.MaxConnections = 1 })
	s := dialSub(t, g)
	require.NoError(t, s.SendCmd("NEWS", []byte(strings.Repeat("x", 1000))))
	require.NoError(t, s.SendCmd(zmq4.CmdSubscribe, []byte("news\x00")))
	s.ready(t, hub, "news")
	publish(t, hub, "news", "one", "1")
	require.Equal(t, []string{"news\x00", "one", "1"}, s.next(t))
	other := dialSub(t, g)
	requireHungUp(t, other.tcp) // because the first has subscribed, it is no stranger and keeps its place

	require.NoError(t, s.SendCmd(zmq4.CmdSubscribe, []byte("other\x00")))
	require.NoError(t, s.SendCmd(zmq4.CmdCancel, []byte("news\x00")))
	s.ready(t, hub, "other") // so the command before is done
	publish(t, hub, "news", "two", "2")
	publish(t, hub, "other", "three", "3")
	require.Equal(t, []string{"other\x00", "three", "3"}, s.next(t))
}

// A program that speaks an older protocol, or another one, and waits for an
// answer is disconnected at once. The log says which protocol it is, and which
// port refused it.
func TestOldProtocols(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sent, says string }{
		"ZMTP 1":                 {"\x01\x00", "speaks ZMTP 1 (libzmq before 3.0); this port needs ZMTP 3"},
		"ZMTP 1, with more":      {"\xff" + strings.Repeat("\x00", 9), "speaks ZMTP 1"},
		"ZMTP 2":                 {"\xff" + strings.Repeat("\x00", 8) + "\x7f\x01\x02\x00\x00", "speaks ZMTP 2 (libzmq before 4.0); this port needs ZMTP 3"},
		"64 bytes of version 2":  {"\xff" + strings.Repeat("\x00", 8) + "\x7f\x01" + strings.Repeat("\x00", 53), "speaks ZMTP 2"},
		"HTTP that is not whole": {"G", "does not speak ZeroMQ's protocol"},
		"TLS":                    {"\x16\x03\x01", "speaks TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			var meshLog, gatewayLog logbook
			m := newMesh(t, "m", meshLog.Logger())
			_, g := start(t, withLog(&gatewayLog))
			for address, log := range map[string]*logbook{m.Address(): &meshLog, pubOf(g): &gatewayLog} {
				conn := dial(t, address)
				write(t, conn, []byte(c.sent))
				requireHungUp(t, conn)
				who := "mesh"
				if log == &gatewayLog {
					who = "gateway"
				}
				eventually(t, "it is logged", func() bool { return log.Has(who + ": refused a connection") })
				require.Contains(t, log.Line("refused"), c.says) // rather than that it took too long
			}
		})
	}
}

// libzmq's DEALER with PROBE_ROUTER gets the answers to its requests and no
// others. A client behind a proxy gets its answers even if it is named like a
// verb.
func TestNamesAndProbesOfLibzmq(t *testing.T) {
	t.Parallel()
	_, g := start(t)
	p := run(t, `
import sys, threading, zmq
c = zmq.Context()
d = c.socket(zmq.DEALER)
d.setsockopt(zmq.PROBE_ROUTER, 1)
d.connect(sys.argv[1])
for prefix in (b"none1", b"none2"):
    d.send_multipart([b"", b"channel", prefix])
    print(d.recv_multipart())
d.send_multipart([b"list", b"", b"10"])  # without a delimiter, and with an empty prefix
print(d.recv_multipart())

front, back = c.socket(zmq.ROUTER), c.socket(zmq.DEALER)
front.setsockopt(zmq.ROUTER_HANDOVER, 1)
port = front.bind_to_random_port("tcp://127.0.0.1")
back.connect(sys.argv[1])
threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()
for name in (b"web1", b"list", b"publish", b"channel"):
    for correlate in (0, 1):
        q = c.socket(zmq.REQ)
        q.setsockopt(zmq.ROUTING_ID, name)
        q.setsockopt(zmq.REQ_CORRELATE, correlate)
        q.setsockopt(zmq.PROBE_ROUTER, 1)
        q.rcvtimeo = 20000
        q.connect("tcp://127.0.0.1:%d" % port)
        for ask in ([b"list"], [b"list", b""], [b"publish", b"a", b"h", b"1"], [b"channel", b"none1"]):
            q.send_multipart(ask)
            print(name.decode(), correlate, q.recv())
        q.close(0)
print("end")
sys.stdin.readline()
`, repOf(g))
	for _, name := range []string{"none1", "none2"} {
		require.Contains(t, p.line(t), `"channel_name":"`+name+`"`)
	}
	require.Contains(t, p.line(t), `"data":`)
	for range 4 * 2 {
		for _, has := range []string{`"data":`, `"data":`, `{"status":"ok"}`, `"channel_name":"none1"`} {
			require.Contains(t, p.line(t), has)
		}
	}
	require.Equal(t, "end", p.line(t))
}

// A reader of libzmq that is stopped, while its kernel goes on acknowledging, is
// disconnected after some PINGs without an answer. One that runs and says nothing
// stays, and so does one of ZMTP 3.0, which may not know PING.
func TestReaderThatIsStopped(t *testing.T) {
	t.Parallel()
	hub, g := start(t, func(o *setup) { o.Beat = time.Second })
	const program = `
import sys, zmq
s = zmq.Context().socket(zmq.SUB)
s.subscribe(b"news\0")
s.connect(sys.argv[1])
while True: print(s.recv_multipart()[1].decode())
`
	runs, stops := run(t, program, pubOf(g)), run(t, program, pubOf(g))
	old := subscribe(t, hub, g, "news\x00", "news") // greets as 3.0
	eventually(t, "both read", func() bool {
		publish(t, hub, "news", "probe", "0")
		return len(runs.lines) > 0 && len(stops.lines) > 0
	})
	require.Equal(t, 3, g.Stats().Readers)
	require.NoError(t, stops.cmd.Process.Signal(syscall.SIGSTOP))
	eventually(t, "it is gone", func() bool { return g.Stats().Readers == 2 })
	require.NoError(t, stops.cmd.Process.Signal(syscall.SIGCONT))
	eventually(t, "it is back", func() bool { return g.Stats().Readers == 3 })
	publish(t, hub, "news", "end", "0")
	for runs.line(t) != "end" {
	}
	for old.next(t)[1] != "end" { // and no PING among them
	}
}

// Addresses may be written as in ZeroMQ's guides. The error for an unsupported
// one names what is not supported.
func TestAddresses(t *testing.T) {
	t.Parallel()
	hub, g := start(t, func(o *setup) {
		o.Pub, o.Pull, o.Rep, o.Insecure = "tcp://*:*", "tcp://127.0.0.1:*", "", true
	})
	require.Regexp(t, `^tcp://\[::\]:[1-9]`, pubOf(g))
	require.Regexp(t, `^tcp://127\.0\.0\.1:[1-9]`, pullOf(g))
	dialPush(t, g)
	for address, says := range map[string]string{
		"ipc:///run/c.sock": `"ipc" is not supported, only tcp`, "inproc://x": `"inproc" is not supported`,
		"tcp://lo:1": "the name of an interface", "tcp://*:1": "set Insecure",
	} {
		_, err := zmqgateway.New(zmqgateway.Options{Hub: hub, Pub: address})
		require.ErrorContains(t, err, says)
	}
}
