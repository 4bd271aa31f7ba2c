package hostile

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
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/proctest"
)

// TestHostilePeersThatVanish pulls the cable: server and peers are in network
// namespaces of their own, and the link between them goes down. Neither side gets a
// FIN, a reset or an answer any more. In TestHostileSilence, the peer's system still
// acknowledges what it gets.
func TestHostilePeersThatVanish(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	if setns == 0 {
		t.Skip("the number of setns is not known for ", runtime.GOARCH)
	}
	here, there := linkOf(t)
	var gone departures
	s := hubtest.New(t, channels.Options{PingPeriod: time.Second, WriteTimeout: time.Second, QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, OnDisconnect: gone.hook})
	s.HTTP.Listener.Close()
	here.within(t, func() (err error) {
		s.HTTP.Listener, err = net.Listen("tcp", here.addr+":0")
		return err
	})
	s.HTTP.Start()
	before := hubtest.Used()
	const n = 20 // of each kind
	var cs []*hubtest.Conn
	there.within(t, func() error {
		for i := range 2 * n {
			c, err := net.DialTimeout("tcp", s.HTTP.Listener.Addr().String(), hubtest.Patience)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			cs = append(cs, &hubtest.Conn{T: t, C: c})
			if _, err := io.WriteString(c, hubtest.UpgradeRequest([]string{"/channel/idle/", "/channel/busy/"}[i%2])); err != nil {
				return err
			}
		}
		return nil
	})
	hubtest.Until(t, "all have come", func() bool { return s.Hub.Stats().Connections == 2*n })
	here.down(t)
	// The hub notices busy peers by its writes or their full queues, idle ones by
	// its pings.
	body := `"` + hubtest.Long(8<<10) + `"`
	hubtest.Until(t, "the busy ones have left", func() bool {
		s.PublishGo("busy", body)
		return s.Hub.Stats().Connections <= n
	})
	for _, err := range gone.wait(t, 2*n) {
		require.Error(t, err)
	}
	before.Held(t, 2*n*hubtest.PerClient)
	for _, c := range cs {
		c.Close()
	}
	before.Over(t)
	require.Zero(t, s.Hub.Stats().Connections)
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
