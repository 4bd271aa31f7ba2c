package channels_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/proctest"
)

// TestHostilePeersThatVanish takes the cable out: server and peers are in
// network namespaces of their own, and the link between them goes down. Neither
// side gets a FIN, a reset or an answer any more. TestHostileSilence shows the same
// for a peer whose system still acknowledges what it gets.
func TestHostilePeersThatVanish(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	if setns == 0 {
		t.Skip("the number of setns is not known for ", runtime.GOARCH)
	}
	here, there := linkOf(t)
	var gone departures
	s := newServer(t, channels.Options{PingPeriod: time.Second, WriteTimeout: time.Second, QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, OnDisconnect: gone.hook})
	s.http.Listener.Close()
	here.within(t, func() (err error) {
		s.http.Listener, err = net.Listen("tcp", here.addr+":0")
		return err
	})
	s.http.Start()
	before := used()
	const n = 20 // of each kind
	var cs []tcpClient
	there.within(t, func() error {
		for i := range 2 * n {
			c, err := net.DialTimeout("tcp", s.http.Listener.Addr().String(), patience)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			cs = append(cs, tcpClient{&rawClient{t, c, nil}})
			if _, err := io.WriteString(c, upgradeRequest([]string{"/channel/idle/", "/channel/busy/"}[i%2])); err != nil {
				return err
			}
		}
		return nil
	})
	until(t, "all have come", func() bool { return s.hub.Stats().Connections == 2*n })
	here.down(t)
	// Who is published to is found out by the writes, or by the queue; who is
	// not, by the pings.
	body := `"` + long(8<<10) + `"`
	until(t, "the busy ones have left", func() bool {
		s.publishGo("busy", body)
		return s.hub.Stats().Connections <= n
	})
	for _, err := range gone.wait(t, 2*n) {
		require.Error(t, err)
	}
	before.held(t, 2*n*perClient)
	for _, c := range cs {
		c.close()
	}
	before.over(t)
	require.Zero(t, s.hub.Stats().Connections)
}

// end is one end of a link between two network namespaces. Each namespace is that
// of a process, and ends with it.
type end struct {
	pid  int
	addr string
}

const link = "cable" // its name at both ends

// linkOf makes two namespaces and a link between them, for the length of the test.
func linkOf(t *testing.T) (here, there end) {
	t.Helper()
	here, there = end{newSpace(t), "192.0.2.1"}, end{newSpace(t), "192.0.2.2"}
	here.run(t, fmt.Sprint("link add ", link, " type veth peer name ", link, " netns ", there.pid))
	for _, e := range []end{here, there} {
		e.run(t, "addr add "+e.addr+"/30 dev "+link)
		e.run(t, "link set "+link+" up")
	}
	return here, there
}

// newSpace returns a process in a namespace of its own: it has echoed a line.
func newSpace(t *testing.T) (pid int) {
	t.Helper()
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: unshare: %v: %s", err, out)
	}
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
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)
	_, err = io.ReadFull(out, make([]byte, 1))
	require.NoError(t, err)
	return cmd.Process.Pid
}

func (e end) space() string { return fmt.Sprintf("/proc/%d/ns/net", e.pid) }

// run runs a command of ip.
func (e end) run(t *testing.T, command string) {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + e.space(), "ip"}, strings.Fields(command)...)...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", command, out)
}

func (e end) down(t *testing.T) {
	t.Helper()
	e.run(t, "link set "+link+" down")
}

// setns is the number of a system call that package syscall lacks on amd64.
var setns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// within runs f on a thread that is in the namespace. A socket that is made
// there stays there.
func (e end) within(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		space, err := os.Open(e.space())
		if err != nil {
			done <- err
			return
		}
		defer space.Close()
		if _, _, no := syscall.RawSyscall(setns, space.Fd(), syscall.CLONE_NEWNET, 0); no != 0 {
			done <- no
			return
		}
		done <- f()
	}()
	require.NoError(t, <-done)
}
