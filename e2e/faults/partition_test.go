//go:build linux

package faults

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/e2e/internal/netns"
	"github.com/channels-go/channels/internal/proctest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// inside is the variable by which the test binary knows that it is in its own
// network.
const inside = "FAULTS_INSIDE"

// alone runs the test in its own empty network namespace. Its addresses
// conflict with no others, and everything in it goes with the process. alone
// returns true inside. If there can be no such namespace, the test is skipped,
// or fails with NETNS=require.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	unshare := []string{"--net"}
	if os.Getuid() != 0 { // most systems let every user be root of a namespace
		unshare = append(unshare, "--user", "--map-root-user")
	}
	if out, err := exec.Command("unshare", append(unshare, "ip", "link", "add", "switch", "type", "bridge")...).CombinedOutput(); err != nil {
		why := fmt.Sprintf("NO NETWORK NAMESPACES, so partitions are not tested: unshare: %v: %s", err, out)
		require.NotEqual(t, "require", os.Getenv("NETNS"), why)
		t.Skip(why)
	}
	args := append(unshare, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-pace="+pace.String())
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end).String())
	}
	cmd := exec.Command("unshare", args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), inside+"="+binary), &out, &out
	require.NoError(t, proctest.Start(cmd))
	err := cmd.Wait()
	t.Logf("in its own network:\n%s", &out)
	require.NoError(t, err)
	return false
}

// A network is three hosts, each its own network namespace, on a bridge with
// the test and Redis.
type network struct {
	t     *testing.T
	hosts [3]netns.Host
}

// subnet is reserved for measurements (RFC 2544).
const subnet = "198.18.77."

// store is the address of Redis. Clients have an address of their own.
const store = subnet + "2"

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t}
	var here netns.Host
	here.IP(t, "link set lo up", "link add switch type bridge", "addr add "+subnet+"1/24 dev switch", "addr add "+store+"/24 dev switch", "link set switch up")
	for i := range n.hosts {
		host, out := netns.New(t), fmt.Sprint("host", i)
		here.IP(t, fmt.Sprint("link add ", out, " type veth peer name inside netns ", int(host)), "link set "+out+" master switch up")
		host.IP(t, "addr add "+n.ip(i)+"/24 dev inside", "link set inside up", "link set lo up")
		n.hosts[i] = host
	}
	return n
}

func (n *network) ip(host int) string { return fmt.Sprintf("%s%d", subnet, 11+host) }

// lose makes a host send frames for an address to an Ethernet address that no
// host has. The sender is not told.
func (n *network) lose(host int, ip string) {
	n.t.Helper()
	n.hosts[host].IP(n.t, "neigh replace "+ip+" lladdr 02:00:00:00:00:ff nud permanent dev inside")
}

// find ends lose.
func (n *network) find(host int, ip string) {
	n.t.Helper()
	n.hosts[host].IP(n.t, "neigh del "+ip+" dev inside")
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
	if !alone(t) {
		return
	}
	n := newNetwork(t)
	redis := redistest.Start(t, append(durable, "--bind", "127.0.0.1", store, "--protected-mode", "no")...)
	key := secret(t, "the key of all replicas")
	var all []*replica
	for i, name := range names {
		all = append(all, newReplica(t, name, n.ip(i), n.hosts[i].Enter(),
			"-redis", fmt.Sprintf("redis://%s:%d/0", store, redis.Port), "-mesh-key-file", key))
		quiet(all[i])
		all[i].start()
	}
	green(t, all...)
	a, b, c := all[0], all[1], all[2]
	before := a.usage()
	k := check(t, all, 6, 4, *pace)
	f := listen(t, b, "free")
	k.more(100)

	// The mesh is cut 2 | 1, but Redis is not: c gets messages with positions
	// from there.
	n.part(n.lose)
	eventually(t, "the links are seen to be down", func() bool {
		return a.nodes()["a"].Mesh.Up == 1 && b.nodes()["b"].Mesh.Up == 1 && c.nodes()["c"].Mesh.Up == 0
	})
	k.more(200)
	k.settle() // every client has what was published meanwhile
	for range 50 {
		f.publish(a) // the two go on
	}
	eventually(t, "every replica reports c as lost, c included", func() bool {
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

	// Redis is cut off from c too: c refuses, and the others go on.
	n.lose(2, store)
	_, err := post(patient, c, kept, `"cut-off"`, "cut-off")
	require.Equal(t, errRefused{http.StatusServiceUnavailable, "store_unavailable"}, err)
	k.more(20) // each publisher waits 2 s for c's answer, one time in three
	for range 50 {
		f.publish(a)
	}

	eventually(t, "each side reports the other as lost", func() bool {
		of := func(r, other *replica) string { return r.nodes()[other.name].Status }
		return of(a, c) == "red" && of(b, c) == "red" && of(c, a) == "red" && of(c, b) == "red" && of(c, c) == "red" && of(a, a) == "green" && of(b, b) == "green"
	})
	require.Equal(t, http.StatusServiceUnavailable, ready(c))
	require.Equal(t, http.StatusOK, ready(a))

	n.find(2, store)
	n.part(n.find)
	k.more(200)
	green(t, all...)
	far := listen(t, c, "free")
	for range 50 {
		far.publish(a) // over links that are up again
	}
	k.verify()
	a.back(before)
}
