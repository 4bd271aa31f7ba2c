//go:build linux

package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

const patience = basetest.Patience

var eventually = basetest.Eventually

// A replica is example/server. It may be started several times at the same
// address.
type replica struct {
	*proctest.Process // the present or last one; nil before the first

	t    *testing.T
	name string
	addr string
	mesh string // host:port of its mesh
	argv []string
	env  []string // nil: that of the test
	up   int      // how many links of its mesh are up if all is well
	log  *basetest.Log
}

// newReplica prepares a replica on a host, with further flags. If wrap is not
// empty, it is put before the command.
func newReplica(t *testing.T, name, host string, wrap []string, flags ...string) *replica {
	r := &replica{t: t, name: name, up: len(names) - 1,
		addr: fmt.Sprintf("%s:%d", host, redistest.FreePort(t)), mesh: fmt.Sprintf("%s:%d", host, redistest.FreePort(t))}
	r.argv = append(append(r.argv, wrap...), binary, "-node", name, "-addr", r.addr, "-history", "keep*=100000,1h", "-drain", "1s", "-drain-delay", "0",
		"-mesh", "zmq", "-mesh-listen", "tcp://"+r.mesh)
	r.argv = append(r.argv, flags...)
	t.Cleanup(func() {
		if t.Failed() && r.log != nil {
			log := r.log.String()
			t.Logf("%s wrote last:\n%s", name, log[max(0, len(log)-8<<10):])
		}
	})
	return r
}

var names = []string{"a", "b", "c"}

// quiet pings nobody: a listener answers no pings while the test expects nothing.
func quiet(r *replica) { r.argv = append(r.argv, "-ping-period", "10m") }

// overRedis has a replica's mesh go over Redis, which is then its only link.
func (r *replica) overRedis() {
	at := slices.Index(r.argv, "-mesh")
	r.argv, r.up = slices.Replace(r.argv, at, at+4, "-mesh", "redis"), 1
}

// three starts replicas a, b and c on one Redis, through which they find each
// other. change may change a replica before it starts.
func three(t *testing.T, redis *redistest.Server, change ...func(*replica)) []*replica {
	var all []*replica
	for i, name := range names {
		all = append(all, newReplica(t, name, "127.0.0.1", nil, "-redis", "redis://"+redis.Addr+"/0"))
		for _, f := range change {
			f(all[i])
		}
		all[i].start()
	}
	green(t, all...)
	return all
}

// start starts the process and waits until it is ready.
func (r *replica) start() {
	r.t.Helper()
	r.launch()
	eventually(r.t, r.name+" is ready", func() bool {
		status, _ := r.get("/readyz")
		return status == http.StatusOK
	})
}

func (r *replica) launch() {
	r.t.Helper()
	cmd := exec.Command(r.argv[0], r.argv[1:]...)
	cmd.Env = r.env
	r.log = &basetest.Log{}
	cmd.Stdout, cmd.Stderr = r.log, r.log
	r.Process = proctest.Run(r.t, cmd)
}

// terminate asks the process to stop and waits until it has.
func (r *replica) terminate() {
	r.t.Helper()
	r.Signal(syscall.SIGTERM)
	r.WaitExit()
}

// patient is for requests that must succeed, quick for requests that are
// repeated.
var patient = &http.Client{Timeout: patience, Transport: plain.Transport}
var quick = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (r *replica) get(path string) (status int, body []byte) {
	resp, err := quick.Get("http://" + r.addr + path)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, body
}

// A node is a replica as GET /v1/nodes shows it.
type node struct {
	Node    string
	Status  string
	Reasons []string
	Started time.Time // by its own clock
	Mesh    struct {
		Up      int
		Refused int
		Lost    int
		Dropped int
	}
}

func (r *replica) nodes() map[string]node {
	var page struct{ Data []node }
	all := map[string]node{}
	if _, body := r.get("/v1/nodes"); json.Unmarshal(body, &page) == nil {
		for _, n := range page.Data {
			all[n.Node] = n
		}
	}
	return all
}

// green waits until every replica reports that all of them are green and linked
// to each other.
func green(t *testing.T, all ...*replica) {
	t.Helper()
	eventually(t, "all replicas are green", func() bool {
		for _, r := range all {
			nodes := r.nodes()
			for _, other := range all {
				if n := nodes[other.name]; n.Status != "green" || n.Mesh.Up < other.up {
					return false
				}
			}
		}
		return true
	})
}

// linked waits until every replica reports that it is linked to the others.
// What they report about each other comes with heartbeats, some seconds later.
func linked(t *testing.T, all ...*replica) {
	t.Helper()
	eventually(t, "all replicas are linked", func() bool {
		for _, r := range all {
			if r.nodes()[r.name].Mesh.Up < r.up {
				return false
			}
		}
		return true
	})
}

// usage is what a process uses.
type usage struct{ files, threads, rss int }

var usageLine = regexp.MustCompile(`(?m)^(Threads|VmRSS):\s+(\d+)`)

func (r *replica) usage() (u usage) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d", r.Cmd.Process.Pid)
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	require.NoError(r.t, err)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	require.NoError(r.t, err)
	u.files = len(files)
	for _, m := range usageLine.FindAllSubmatch(status, -1) {
		n, _ := strconv.Atoi(string(m[2]))
		if string(m[1]) == "Threads" {
			u.threads = n
		} else {
			u.rss = n << 10
		}
	}
	return u
}

// back waits until the process uses no more than before. A connection, and with
// it its goroutines, is a file. The process may keep some memory and threads.
func (r *replica) back(before usage) {
	r.t.Helper()
	var now usage
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s had %+v, and has %+v", r.name, before, now)
		}
	}()
	eventually(r.t, r.name+" uses no more than before", func() bool {
		now = r.usage()
		// A Redis client keeps a few more connections after a load.
		return now.files <= before.files+16 && now.threads <= before.threads+16 && now.rss <= before.rss+64<<20
	})
}
