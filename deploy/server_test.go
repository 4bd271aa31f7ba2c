//go:build linux

package deploy

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// root is the folder of the repository.
const root = ".."

// server is the binary that the Dockerfile builds, on this machine.
var server string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "deploy")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		server = filepath.Join(dir, "server")
		command, err := buildCommand()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		build := exec.Command("/bin/sh", "-c", strings.Replace(command, built, server, 1))
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "the Dockerfile's %q failed: %v\n%s", command, err, out)
			return 1
		}
		return m.Run()
	}())
}

// The binary needs nothing of the system, so it runs in an empty image.
func TestServerIsStatic(t *testing.T) {
	f, err := elf.Open(server)
	require.NoError(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type, "it needs a dynamic linker")
	}
	needs, err := f.ImportedLibraries()
	require.NoError(t, err)
	require.Empty(t, needs)
	info, err := buildinfo.ReadFile(server)
	require.NoError(t, err)
	require.Equal(t, "github.com/channels-go/channels/example/server", info.Path)
}

// starts requires that the server starts with the flags of a file, answers, and ends
// with 0 when it is asked to. Its secrets are other files, its ports are free ones, and
// there is no Redis, without which it starts as well.
func starts(t *testing.T, args []string, env ...string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600))
	args = slices.Clone(args)
	for i, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		instead := map[string]string{"-addr": "127.0.0.1:0", "-metrics": "127.0.0.1:0", "-mesh-listen": "tcp://*:0", "-node": "channels-1",
			"-redis": "redis://127.0.0.1:1/0", "-drain": "0", "-drain-delay": "0"}[name]
		if strings.HasSuffix(name, "-file") {
			instead = secret
		}
		if instead != "" && strings.Contains(arg, "=") {
			args[i] = name + "=" + instead
		} else if instead != "" {
			args[i+1] = instead
		}
	}
	cmd := exec.Command(server, args...)
	cmd.Env, cmd.Dir = append(env, "HOME=/nonexistent", "CHANNELS_REDIS=redis://127.0.0.1:1/0"), "/"
	var log lockedBuffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	listening := regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)
	require.Eventually(t, func() bool { return listening.MatchString(log.String()) || len(ended) > 0 }, time.Minute, time.Millisecond)
	found := listening.FindStringSubmatch(log.String())
	require.NotNil(t, found, "%q: %s", args, log.String())
	resp, err := http.Get("http://" + found[1] + "/healthz")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended, "%s", log.String())
}

// A lockedBuffer may be written and read concurrently.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// flags are the server's flags in a file, by their names.
type flags map[string][]string

// readFlags reads the flags of a command. The server has to know each, and to take its
// value.
func readFlags(t *testing.T, args []string) flags {
	t.Helper()
	all := flags{}
	for i := 0; i < len(args); i++ {
		name, value, ok := strings.Cut(args[i], "=")
		if !ok {
			i++
			require.Less(t, i, len(args), "%s has no value", name)
			value = args[i]
		}
		require.Regexp(t, "^-[a-z]", name)
		name = name[1:]
		all[name] = append(all[name], value)
		// The help comes only if what is before it is right. Kubernetes puts in the
		// pod's name.
		value = strings.ReplaceAll(value, "$(POD)", "channels-1")
		out, err := exec.Command(server, "-"+name, value, "-h").CombinedOutput()
		require.NoError(t, err, "-%s %s: %s", name, value, out)
	}
	return all
}

// one returns the value of a flag that is given once.
func (f flags) one(t *testing.T, name string) string {
	t.Helper()
	require.Len(t, f[name], 1, "-%s", name)
	return f[name][0]
}

func (f flags) duration(t *testing.T, name string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(f.one(t, name))
	require.NoError(t, err)
	return d
}

// end is how long the server takes to end after SIGTERM, at most: what example/server
// allows itself.
func (f flags) end(t *testing.T) time.Duration {
	t.Helper()
	delay, drain := f.duration(t, "drain-delay"), f.duration(t, "drain")
	return max(2*delay, delay+drain+5*time.Second)
}

// port returns the port of an address.
func port(t *testing.T, address string) string {
	t.Helper()
	i := strings.LastIndexByte(address, ':')
	require.Positive(t, i+1, address)
	return address[i+1:]
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}
