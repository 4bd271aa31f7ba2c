package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
)

// examples are the programs of folder example that these tests run. Each prints
// "NAME is running: http://…".
var examples = map[string]string{"chat": "Chat", "private-messaging": "Private messaging", "replicas": "Replicas", "todo": "Todo"}

// binaries is the folder of the examples, built once by TestMain. Go's test
// cache does not notice changes to them: run these tests with -count=1.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "chat")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir)
		for name := range examples {
			build.Args = append(build.Args, "./example/"+name)
		}
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "the examples could not be built: %v\n%s", err, out)
			return 1
		}
		code := m.Run()
		if err := endChromium(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// server is a running example.
type server struct {
	*proctest.Process
	t      testing.TB
	addr   string
	stdout *basetest.Log
}

// start starts an example and a browser for a test that runs in parallel with
// others.
func start(t *testing.T, example string, args ...string) (*server, *browser) {
	t.Helper()
	t.Parallel()
	return run(t, example, args...), newBrowser(t)
}

// run starts an example, on a free port unless args say otherwise, and returns
// when it listens.
func run(t testing.TB, example string, args ...string) *server {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, example), append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	var stdout, stderr basetest.Log
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	s := &server{t: t, Process: proctest.Run(t, cmd), stdout: &stdout}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server wrote:\n%s%s", stdout.String(), stderr.String())
		}
	})
	basetest.Eventually(t, "the server prints its address", func() bool {
		addr, first := strings.CutPrefix(stdout.String(), examples[example]+" is running: http://")
		var whole bool
		s.addr, _, whole = strings.Cut(addr, "/\n")
		return first && whole
	})
	return s
}

func (s *server) home() string { return "http://" + s.addr + "/" }

func (s *server) url(room string) string { return "http://" + s.addr + "/#" + room }

// terminate asks the server to stop and waits until it has.
func (s *server) terminate() {
	s.t.Helper()
	s.Signal(syscall.SIGTERM)
	s.WaitExit()
}

// request sends a request, to another host than the URL's if host is not empty,
// and returns its answer.
func request(t testing.TB, client *http.Client, method, url, host, body string) (status int, answer []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if host != "" {
		r.Host = host
	}
	res, err := client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, answer
}

// post publishes like a program: without a name.
func (s *server) post(room, message string) {
	s.t.Helper()
	status, answer := request(s.t, http.DefaultClient, "POST", s.home()+"v1/channel/"+room+"/publish", "", message)
	require.Equal(s.t, http.StatusOK, status, "%s", answer)
}

// network is what lies between a page and the server.
type network struct {
	*basetest.Relay
	server string // its HOST:PORT
}

func newNetwork(t *testing.T, s *server) *network {
	t.Helper()
	return &network{basetest.NewRelay(t, s.addr), s.addr}
}

func (n *network) url(room string) string { return "http://" + n.Addr + "/#" + room }

// lose is for ToServer and ToClient: what is sent does not arrive.
func lose([]byte) basetest.Fate { return basetest.Swallow }

// mend ends Part, and loses nothing any more.
func (n *network) mend() {
	n.ToServer(nil)
	n.ToClient(nil)
	n.Lead(n.server)
}
