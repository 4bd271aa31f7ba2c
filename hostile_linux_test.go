package channels_test

import (
	"bytes"
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

// end is one end of a link between two network namespaces.
type end struct{ space, addr string }

const link = "cable" // its name at both ends

// linkOf makes two namespaces and a link between them, for the length of the test.
func linkOf(t *testing.T) (here, there end) {
	t.Helper()
	name := fmt.Sprintf("channels-%d", os.Getpid())
	here, there = end{name + "-a", "192.0.2.1"}, end{name + "-b", "192.0.2.2"}
	command := func(line string) error {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, bytes.TrimSpace(out))
		}
		return nil
	}
	t.Cleanup(func() {
		command("netns del " + here.space) // and its end of the link, and so the link
		command("netns del " + there.space)
	})
	lines := []string{"netns add " + here.space, "netns add " + there.space,
		"-n " + here.space + " link add " + link + " type veth peer name " + link + " netns " + there.space}
	for _, e := range []end{here, there} {
		lines = append(lines, "-n "+e.space+" addr add "+e.addr+"/30 dev "+link, "-n "+e.space+" link set "+link+" up")
	}
	for _, line := range lines {
		if err := command(line); err != nil {
			t.Skip("no network namespaces here: ", err)
		}
	}
	return here, there
}

func (e end) down(t *testing.T) {
	t.Helper()
	out, err := exec.Command("ip", "-n", e.space, "link", "set", link, "down").CombinedOutput()
	require.NoError(t, err, "%s", out)
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
		space, err := os.Open("/run/netns/" + e.space)
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
