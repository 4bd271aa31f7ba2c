package connect

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A process is a replica that can be killed: the test binary, run once more.
type process struct {
	*proctest.Process
	addr string
}

// processEnv has what such a process is to do.
const processEnv = "CONNECT_REPLICA"

// orders are what a process is to do, in JSON.
type orders struct {
	Redis   string
	Origin  string // of the pages
	History int
}

func startProcess(t *testing.T, o settings, redis string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"="+quoted(orders{redis, home.URL, o.history}))
	var stderr basetest.Log
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	p := &process{Process: proctest.Run(t, cmd)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the replica that was killed has written:\n%s", &stderr)
		}
	})
	p.addr, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	p.addr = strings.TrimSpace(p.addr)
	return p
}

// runProcess is the whole life of a process: it prints its address, and serves until
// it is killed.
func runProcess(in string) error {
	var o orders
	if err := json.Unmarshal([]byte(in), &o); err != nil {
		return err
	}
	with, err := onRedis(redis.NewClient(&redis.Options{Addr: o.Redis}))
	if err != nil {
		return err
	}
	options := settings{history: o.History}.options("doomed", with, newReports())
	options.AllowedOrigins = []string{o.Origin}
	hub, err := channels.New(options)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, hub.Handler())
}

// inRedis is for replicas of several processes.
func inRedis(t *testing.T, addr string) shared {
	t.Helper()
	with, err := onRedis(redistest.NewClient(t, addr))
	require.NoError(t, err)
	t.Cleanup(func() { with.store.Close() })
	join := with.join
	with.join = func(name string) mesh.Mesh {
		m := join(name)
		t.Cleanup(func() { m.Close() }) // after the hub has ended
		return m
	}
	return with
}

func onRedis(client *redis.Client) (shared, error) {
	st, err := redisstore.New(client, redisstore.Options{})
	return shared{st, func(name string) mesh.Mesh {
		m, err := redismesh.New(client, redismesh.Options{ReplicaID: name})
		if err != nil {
			panic(err)
		}
		return m
	}}, err
}
