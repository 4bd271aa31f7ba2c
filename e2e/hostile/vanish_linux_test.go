package hostile

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/e2e/internal/netns"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
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
	s := hubtest.New(t, channels.Options{PingPeriod: 3 * time.Second, WriteTimeout: time.Second, QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10, OnDisconnect: gone.hook})
	s.HTTP.Listener.Close()
	within(t, here, func() (err error) {
		s.HTTP.Listener, err = net.Listen("tcp", serverIP+":0")
		return err
	})
	s.HTTP.Start()
	before := hubtest.Used()
	const n = 20 // of each kind
	var cs []*hubtest.Conn
	within(t, there, func() error {
		for i := range 2 * n {
			c, err := net.DialTimeout("tcp", s.HTTP.Listener.Addr().String(), basetest.Patience)
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
	basetest.Eventually(t, "all have come", func() bool { return s.Hub.Stats().Connections == 2*n })
	here.IP(t, "link set "+link+" down")
	// The hub notices busy peers by its writes or their full queues, idle ones by
	// its pings.
	body := `"` + hubtest.Long(8<<10) + `"`
	basetest.Eventually(t, "the busy ones have left", func() bool {
		s.PublishGo("busy", body)
		return s.Hub.Stats().Connections <= n
	})
	for _, err := range gone.wait(t, 2*n) {
		require.Error(t, err)
	}
	before.Left(t, 2*n*hubtest.PerClient)
	gone.after(t, 2*n, cs...)
	before.Over(t)
	require.Zero(t, s.Hub.Stats().Connections)
}

// link is the name of the interface at both ends of a link.
const link = "cable"

// linkOf makes two namespaces and a link between them, for the length of the test.
func linkOf(t *testing.T) (here, there netns.Host) {
	t.Helper()
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: unshare: %v: %s", err, out)
	}
	here, there = netns.New(t), netns.New(t)
	here.IP(t, fmt.Sprint("link add ", link, " type veth peer name ", link, " netns ", int(there)))
	here.IP(t, "addr add "+serverIP+"/30 dev "+link, "link set "+link+" up")
	there.IP(t, "addr add 192.0.2.2/30 dev "+link, "link set "+link+" up")
	return here, there
}

const serverIP = "192.0.2.1"

// setns is the number of a system call that package syscall lacks on amd64.
var setns = map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]

// within runs f on a thread that is in the namespace. A socket that is made
// there stays there.
func within(t *testing.T, h netns.Host, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		space, err := os.Open(h.Path())
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
