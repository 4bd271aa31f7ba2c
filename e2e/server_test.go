package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
)

// examples are the programs of folder example that these tests run. Each prints
// "NAME is running: http://…".
var examples = map[string]string{"chat": "Chat", "private-messaging": "Private messaging", "replicas": "Replicas"}

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
			fmt.Fprintf(os.Stderr, "Chromium did not end: %v\n", err)
			return 1
		}
		return code
	}())
}

// server is a running example.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string
	exited chan error // receives the result of Wait
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
func run(t *testing.T, example string, args ...string) *server {
	t.Helper()
	s := &server{t: t, exited: make(chan error, 1)}
	s.cmd = exec.Command(filepath.Join(binaries, example), append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	var log bytes.Buffer
	s.cmd.Stderr = &log
	require.NoError(t, proctest.Start(s.cmd))

	listening := make(chan string, 1)
	go func() { // ends with the process
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			listening <- lines.Text()
		}
		io.Copy(io.Discard, out)
		s.exited <- s.cmd.Wait()
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		select {
		case <-s.exited:
		case <-time.After(deadline):
			t.Error("the server did not end")
			return
		}
		if t.Failed() {
			t.Logf("the server wrote:\n%s", &log)
		}
	})

	select {
	case line := <-listening:
		url, ok := strings.CutPrefix(line, examples[example]+" is running: http://")
		require.True(t, ok, "the server printed %q", line)
		s.addr = strings.TrimSuffix(url, "/")
	case <-time.After(deadline):
		require.FailNow(t, "the server did not print its address")
	}
	return s
}

func (s *server) home() string { return "http://" + s.addr + "/" }

func (s *server) url(room string) string { return "http://" + s.addr + "/#" + room }

// terminate asks the server to stop and returns how it ended.
func (s *server) terminate() error {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
	return s.end()
}

// end waits until the server ends, and returns how.
func (s *server) end() error {
	select {
	case err := <-s.exited:
		s.exited <- nil // for the cleanup
		return err
	case <-time.After(deadline):
		return errors.New("the server is still running")
	}
}

// post publishes like a program: without a name.
func (s *server) post(room, message string) {
	s.t.Helper()
	res, err := http.Post("http://"+s.addr+"/v1/channel/"+room+"/publish", "application/json", strings.NewReader(message))
	require.NoError(s.t, err)
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	require.Equal(s.t, http.StatusOK, res.StatusCode, "%s", body)
}

// proxy is the network between a page and the server.
type proxy struct {
	listener net.Listener
	target   string
	deaf     atomic.Bool // what the server sends is lost
	mute     atomic.Bool // what the page sends is lost

	mu  sync.Mutex      // guards the fields below
	up  context.Context // ends when the network is cut
	cut func()          // breaks all connections; no new ones are accepted until mend
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, target: target}
	p.mend()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		all.Wait()
	})
	return p
}

func (p *proxy) url(room string) string { return "http://" + p.listener.Addr().String() + "/#" + room }

// mend ends cut, and loses nothing any more.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut != nil {
		p.cut() // connections of before, which no later cut would end
	}
	p.up, p.cut = context.WithCancel(context.Background())
	p.deaf.Store(false)
	p.mute.Store(false)
}

// carry forwards data between a page and the server until either is gone.
func (p *proxy) carry(page net.Conn) {
	defer page.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	if up.Err() != nil {
		return
	}
	defer context.AfterFunc(up, func() {
		page.Close()
		server.Close()
	})()

	var both sync.WaitGroup
	pass := func(to, from net.Conn, lose *atomic.Bool) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if lose.Load() {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	both.Go(func() { pass(server, page, &p.mute) })
	both.Go(func() { pass(page, server, &p.deaf) })
	both.Wait()
}
