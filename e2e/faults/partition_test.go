//go:build linux

package faults

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A network is three hosts, each a network namespace of its own, on a bridge
// where the test and Redis are. It needs root. CHANNELS_NETNS=require makes it
// a failure where it cannot be had; otherwise the test is skipped.
type network struct {
	t    *testing.T
	name string // of the bridge; the hosts' names begin with it
}

// subnet is one that is set aside for measurements (RFC 2544).
const subnet = "198.18.77."

// store is where Redis is; clients are at an address of their own.
const store = subnet + "2"

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t, fmt.Sprintf("ch%d", os.Getpid()%100_000)}
	t.Cleanup(func() {
		for i := range 3 {
			exec.Command("ip", "netns", "del", n.host(i)).Run()
			exec.Command("ip", "link", "del", n.host(i)).Run() // the kernel takes its time
		}
		exec.Command("ip", "link", "del", n.name).Run()
	})
	commands := []string{"link add NET type bridge", "addr add " + subnet + "1/24 dev NET", "addr add " + store + "/24 dev NET", "link set NET up"}
	for i := range 3 {
		commands = append(commands, strings.Split(strings.NewReplacer("HOST", n.host(i), "IN", n.inside(i), "IP", n.ip(i)).Replace(
			"netns add HOST;link add HOST type veth peer name IN;link set IN netns HOST;link set HOST master NET up;"+
				"-n HOST addr add IP/24 dev IN;-n HOST link set IN up;-n HOST link set lo up"), ";")...)
	}
	for _, c := range commands {
		c = strings.ReplaceAll(c, "NET", n.name)
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			why := fmt.Sprintf("no network namespaces, so partitions are not tested: ip %s: %v: %s", c, err, out)
			require.NotEqual(t, "require", os.Getenv("CHANNELS_NETNS"), why)
			t.Skip(why) // go test does not show it; .ci/setup has said so
		}
	}
	return n
}

func (n *network) host(i int) string   { return fmt.Sprintf("%s%c", n.name, 'a'+i) }
func (n *network) inside(i int) string { return n.host(i) + "i" }
func (n *network) ip(i int) string     { return fmt.Sprintf("%s%d", subnet, 11+i) }

// lose has a host send what is for an address to nobody: the frames go out to
// an Ethernet address that no host has. Nothing tells the sender.
func (n *network) lose(host int, ip string) {
	n.t.Helper()
	n.neighbour(host, "replace "+ip+" lladdr 02:00:00:00:00:ff nud permanent")
}

// find ends it.
func (n *network) find(host int, ip string) {
	n.t.Helper()
	n.neighbour(host, "del "+ip)
}

func (n *network) neighbour(host int, what string) {
	n.t.Helper()
	args := append([]string{"-n", n.host(host), "neigh"}, strings.Fields(what+" dev "+n.inside(host))...)
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(n.t, err, "ip %s: %s", args, out)
}

// part cuts the third host off from the others.
func (n *network) part(f func(host int, ip string)) {
	n.t.Helper()
	for i := range 2 {
		f(i, n.ip(2))
		f(2, n.ip(i))
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	redis := redistest.Start(t, append(durable, "--bind", "127.0.0.1", store, "--protected-mode", "no")...)
	key := secret(t, "the key of all replicas")
	var all []*replica
	for i, name := range []string{"a", "b", "c"} {
		r := newReplica(t, name, n.ip(i), []string{"ip", "netns", "exec", n.host(i)},
			"-redis", fmt.Sprintf("redis://%s:%d/0", store, redis.Port), "-mesh-key-file", key)
		all = append(all, r)
		r.start()
	}
	green(t, all...)
	a, b, c := all[0], all[1], all[2]
	before := a.usage()
	k := check(t, "keep", all, 6, 4, 5*time.Millisecond)
	f := follow(t, b, "free")
	k.more(100)

	// The mesh is cut 2 | 1, and Redis is not: c gets what has positions from there.
	n.part(n.lose)
	redistest.Eventually(t, "the links are seen to be down", func() bool {
		return a.nodes()["a"].Mesh.Up == 1 && b.nodes()["b"].Mesh.Up == 1 && c.nodes()["c"].Mesh.Up == 0
	})
	k.more(200)
	want := k.newest.Load()
	redistest.Eventually(t, "everybody has what was published meanwhile", func() bool {
		for _, one := range k.checkers {
			if one.top.Load() < want {
				return false
			}
		}
		return true
	})
	for range 50 {
		f.publish(a) // the two go on
	}
	redistest.Eventually(t, "everybody says that c is lost, c too", func() bool {
		for _, r := range all {
			nodes := r.nodes()
			c := nodes["c"]
			if nodes["a"].Status != "green" || nodes["b"].Status != "green" || c.Status != "red" || !slices.Contains(c.Reasons, "canary lost: mesh") {
				return false
			}
		}
		return true
	})
	ready := func(r *replica) int { status, _ := r.get("/readyz"); return status }
	require.Equal(t, http.StatusServiceUnavailable, ready(c))
	require.Equal(t, http.StatusOK, ready(a))

	// Redis is cut off from c, too: it refuses, and the others go on.
	n.lose(2, store)
	patient := &checked{name: k.name, http: &http.Client{Timeout: patience, Transport: plain.Transport}}
	_, err := patient.post(c, "cut-off")
	require.Equal(t, errRefused{http.StatusServiceUnavailable, "store_unavailable"}, err)
	k.more(20) // each publisher waits 2 s for an answer of c, one time in three
	for range 50 {
		f.publish(a)
	}

	redistest.Eventually(t, "each side says that the other is lost", func() bool {
		of := func(r, other *replica) string { return r.nodes()[other.name].Status }
		return of(a, c) == "red" && of(b, c) == "red" && of(c, a) == "red" && of(c, b) == "red" && of(c, c) == "red" && of(a, a) == "green" && of(b, b) == "green"
	})
	require.Equal(t, http.StatusServiceUnavailable, ready(c))
	require.Equal(t, http.StatusOK, ready(a))

	n.find(2, store)
	n.part(n.find)
	k.more(200)
	green(t, all...)
	far := follow(t, c, "free")
	for range 50 {
		far.publish(a) // over links that are up again
	}
	k.verify()
	a.back(before)
}
