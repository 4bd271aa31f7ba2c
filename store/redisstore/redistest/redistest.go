// Package redistest starts redis-server processes for tests on free loopback
// ports, and ends them with the test. On Linux they also end if the test binary
// is killed. It needs redis-server in the PATH, and touches no other process of
// the machine.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
)

// oneTry bounds one attempt if the caller retries.
const oneTry = 5 * time.Second

// Server is one redis-server process.
type Server struct {
	Addr string
	Port int

	t       testing.TB
	dir     string
	args    []string
	process *proctest.Process // nil before the first Start
	out     *bytes.Buffer     // of the process
}

// Start starts a server and waits until it answers. The server keeps nothing on
// disk unless args say so ("--appendonly", "yes").
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := New(t, args...)
	s.Start()
	return s
}

// New prepares a server without starting it.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	port := FreePort(t)
	s := &Server{Addr: "127.0.0.1:" + strconv.Itoa(port), Port: port, t: t, dir: t.TempDir()}
	s.args = append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--repl-diskless-sync-delay", "0"}, args...)
	return s
}

// Start starts the process, after New or after Kill. It loads what is on disk.
func (s *Server) Start() {
	s.t.Helper()
	s.run(append([]string{"redis-server"}, s.args...))
	s.WaitReady()
}

func (s *Server) run(argv []string) {
	s.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	require.NoError(s.t, cmd.Err, "redis-server must be installed: run .ci/setup")
	s.out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	s.process = proctest.Run(s.t, cmd)
}

// WaitReady waits until the server answers and has loaded its data.
func (s *Server) WaitReady() {
	s.t.Helper()
	basetest.Eventually(s.t, "redis-server answers", func() bool {
		if s.process.Ended() {
			require.FailNow(s.t, "redis-server has ended", "%s", s.out)
		}
		out, err := s.try(oneTry, "PING")
		return err == nil && strings.Contains(out, "PONG") || err == nil && strings.Contains(out, "NOAUTH")
	})
}

// Kill ends the process at once, like a power cut.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
	}
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	require.NotNil(s.t, s.process, "the server does not run")
	s.process.Signal(sig)
}

// Do sends a command on a connection of its own. It returns what redis-cli
// would print into a pipe.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	out, err := s.try(basetest.Patience, args...)
	require.NoError(s.t, err)
	return out
}

// try asks on a connection of its own, which nothing has cut. An error that the
// server answers is a text like others.
func (s *Server) try(wait time.Duration, args ...string) (string, error) {
	c := redis.NewClient(&redis.Options{
		Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: wait, ReadTimeout: wait, WriteTimeout: wait,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer c.Close()
	words := make([]any, len(args))
	for i, arg := range args {
		words[i] = arg
	}
	reply, err := c.Do(context.Background(), words...).Result()
	var refusal redis.Error
	switch {
	case errors.Is(err, redis.Nil):
		return "", nil
	case errors.As(err, &refusal):
		return refusal.Error(), nil
	}
	return strings.TrimSpace(lines(reply)), err
}

// lines writes each element of a reply on a line of its own.
func lines(reply any) string {
	list, ok := reply.([]any)
	if !ok {
		return fmt.Sprint(reply)
	}
	all := make([]string, len(list))
	for i, item := range list {
		all[i] = lines(item)
	}
	return strings.Join(all, "\n")
}

// Try is Do for a server that may be down, or that may cut its clients off, for
// instance when it becomes a replica. It then returns "".
func (s *Server) Try(args ...string) string {
	out, err := s.try(oneTry, args...)
	if err != nil {
		return ""
	}
	return out
}

// Info returns a field of INFO, or "" if the field is absent or the server is
// down.
func (s *Server) Info(section, field string) string {
	for line := range strings.Lines(s.Try("INFO", section)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return v
		}
	}
	return ""
}

// Client returns a client. The test closes it at its end.
func (s *Server) Client(change ...func(*redis.Options)) *redis.Client {
	return NewClient(s.t, s.Addr, change...)
}

// NewClient returns a client of what leads to a server. The test closes it at its end.
func NewClient(t testing.TB, addr string, change ...func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: addr}
	for _, f := range change {
		f(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// Cluster is a Redis Cluster.
type Cluster struct {
	Masters  []*Server
	Replicas []*Server // one for each master, or none
	t        testing.TB
}

// silence is how long a server may be silent before a Cluster or Sentinel takes
// it for dead. It is long, since most tests want no failover however busy the
// machine is. FailOverSoon sets shortSilence.
const (
	silence      = time.Minute
	shortSilence = time.Second
)

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// StartCluster starts masters that share all slots, each with a replica if
// replicas is set, and waits until they agree. No master is replaced before
// FailOverSoon.
func StartCluster(t testing.TB, masters int, replicas bool, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	args = append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", millis(2 * shortSilence), "--cluster-config-file", "nodes.conf", "--cluster-replica-validity-factor", "0"}, args...)
	for range masters {
		c.Masters = append(c.Masters, Start(t, args...))
		if replicas {
			c.Replicas = append(c.Replicas, Start(t, args...))
		}
	}
	for i, s := range c.Masters {
		s.Do("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(16384*i/masters), strconv.Itoa(16384*(i+1)/masters-1))
	}
	all := c.servers()
	for _, s := range all[1:] {
		s.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(c.Masters[0].Port))
	}
	known := fmt.Sprintf("cluster_known_nodes:%d\r", len(all))
	eventuallyAll(t, "the cluster's servers know each other", all, func(s *Server) bool {
		return strings.Contains(s.Try("CLUSTER", "INFO"), known)
	})
	for i, r := range c.Replicas {
		basetest.Eventually(t, "a replica follows its master", func() bool {
			return r.Try("CLUSTER", "REPLICATE", c.Masters[i].Try("CLUSTER", "MYID")) == "OK"
		})
	}
	eventuallyAll(t, "the replicas are linked to their masters", c.Replicas, (*Server).linked)
	// A master does not vote for a server that it does not know as a replica yet.
	eventuallyAll(t, "the cluster is up", all, func(s *Server) bool {
		return strings.Contains(s.Try("CLUSTER", "INFO"), "cluster_state:ok") &&
			strings.Count(s.Try("CLUSTER", "NODES"), "slave ") == len(c.Replicas)
	})
	c.setTimeout(silence)
	return c
}

// eventuallyAll waits until ask returns true of all servers.
func eventuallyAll(t testing.TB, what string, servers []*Server, ask func(*Server) bool) {
	t.Helper()
	basetest.Eventually(t, what, func() bool {
		return !slices.ContainsFunc(servers, func(s *Server) bool { return !ask(s) })
	})
}

// linked reports whether a replica gets what its master writes.
func (s *Server) linked() bool { return s.Info("replication", "master_link_status") == "up" }

func (c *Cluster) servers() []*Server { return slices.Concat(c.Masters, c.Replicas) }

// FailOverSoon makes the cluster replace a master after two seconds of silence.
func (c *Cluster) FailOverSoon() { c.setTimeout(2 * shortSilence) }

func (c *Cluster) setTimeout(d time.Duration) {
	for _, s := range c.servers() {
		require.Equal(c.t, "OK", s.Do("CONFIG", "SET", "cluster-node-timeout", millis(d)))
	}
}

// Client returns a client. The test closes it at its end.
func (c *Cluster) Client(change ...func(*redis.ClusterOptions)) *redis.ClusterClient {
	o := &redis.ClusterOptions{}
	for _, s := range c.servers() {
		o.Addrs = append(o.Addrs, s.Addr)
	}
	for _, f := range change {
		f(o)
	}
	client := redis.NewClusterClient(o)
	c.t.Cleanup(func() { client.Close() })
	return client
}

// Sentinel is a master with a replica, watched by three sentinels.
type Sentinel struct {
	Master, Replica *Server
	Sentinels       []*Server
	t               testing.TB
}

// StartSentinel starts a master, its replica and three sentinels, and waits
// until they know each other. The master is not replaced before FailOverSoon.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	s := &Sentinel{t: t, Master: Start(t, args...)}
	s.Replica = Start(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(s.Master.Port)}, args...)...)
	for range 3 {
		w := New(t)
		conf := filepath.Join(w.dir, "sentinel.conf")
		text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 2\nsentinel down-after-milliseconds main %s\nsentinel failover-timeout main 3000\n", w.Port, w.dir, s.Master.Port, millis(silence))
		require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
		w.run([]string{"redis-server", conf, "--sentinel"})
		w.WaitReady()
		s.Sentinels = append(s.Sentinels, w)
	}
	eventuallyAll(t, "the sentinels know each other", s.Sentinels, func(w *Server) bool {
		return strings.HasPrefix(w.Try("SENTINEL", "CKQUORUM", "main"), "OK 3") &&
			strings.Contains(w.Try("INFO", "sentinel"), "slaves=1,sentinels=3")
	})
	basetest.Eventually(t, "the replica is linked to its master", s.Replica.linked)
	return s
}

// FailOverSoon makes the sentinels replace a master after a second of silence.
func (s *Sentinel) FailOverSoon() {
	for _, w := range s.Sentinels {
		require.Equal(s.t, "OK", w.Do("SENTINEL", "SET", "main", "down-after-milliseconds", millis(shortSilence)))
	}
}

// Client returns a client. The test closes it at its end.
func (s *Sentinel) Client() *redis.Client {
	o := &redis.FailoverOptions{MasterName: "main"}
	for _, w := range s.Sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, w.Addr)
	}
	c := redis.NewFailoverClient(o)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// FreePort returns ports below those that the system uses for outgoing
// connections (32768 and up on Linux): such a connection could take the port
// while its server is down. The same holds for a Cluster's bus port, which is
// 10000 above.
const firstPort, nPorts = 11000, 11000

var ports struct {
	sync.Mutex
	next int // of nPorts, in turn; 0: none was given out yet
}

// FreePort returns a port that was free just now, together with its bus port.
// No other test that uses FreePort, in any process, gets it before this test
// ends.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = rand.IntN(nPorts) // tests of other packages look for ports too
	}
	for range nPorts {
		ports.next++
		port := firstPort + ports.next%nPorts
		release, ok := reserve(port)
		switch {
		case !ok:
		case !free(port) || !free(port+10000):
			release()
		default:
			t.Cleanup(release)
			return port
		}
	}
	require.FailNow(t, "there is no free port")
	return 0
}

func free(port int) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// reserve takes a name that stands for the port and that only one process can
// have. A process may start its server later, or stop it for a while. The
// system releases the name with the process.
func reserve(port int) (release func(), ok bool) {
	if runtime.GOOS != "linux" {
		return func() {}, true
	}
	l, err := net.Listen("unix", "@channels-test-port-"+strconv.Itoa(port)) // an abstract name, not a file
	if err != nil {
		return nil, false
	}
	return func() { l.Close() }, true
}
