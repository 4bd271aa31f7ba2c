//go:build linux

package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// durable makes Redis lose nothing that it acknowledged.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

func TestReplicasAreKilledUnderLoad(t *testing.T) {
	t.Parallel()
	all := three(t, redistest.Start(t))
	before := all[0].usage()
	c := check(t, all, 6, 4, *pace)
	for _, victim := range []*replica{all[1], all[2], all[1]} {
		c.more(200)
		victim.Kill()
		c.more(200) // the others go on
		victim.start()
	}
	c.more(200)
	c.verify()
	green(t, all...)
	all[0].back(before)
}

func TestStoppedReplicaHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	all := three(t, redistest.Start(t))
	a, b := all[0], all[1]
	before := a.usage()
	c := check(t, all, 6, 4, *pace)
	c.more(200)
	b.Signal(syscall.SIGSTOP)
	eventually(t, "the stopped replica counts as lost", func() bool { return a.nodes()["b"].Status == "red" })
	c.more(20) // each publisher waits 2 s for b's answer, one time in three
	// Checkers on the other replicas get everything meanwhile.
	want := c.newest.Load()
	eventually(t, "checkers on the other replicas go on", func() bool {
		on := 0
		for _, k := range c.checkers {
			if k.top.Load() >= want {
				on++
			}
		}
		return on >= 4
	})
	a.back(before)
	b.Signal(syscall.SIGCONT)
	c.more(200)
	c.verify()
	green(t, all...)
	a.back(before)
	b.back(before)
}

// While the Store is down or hangs, channels without history go on, and those
// with history refuse. Then everything recovers by itself.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name       string
		away, back func(*redistest.Server)
	}{
		{"killed", (*redistest.Server).Kill, (*redistest.Server).Start},
		{"hanging", func(r *redistest.Server) { r.Signal(syscall.SIGSTOP) }, func(r *redistest.Server) { r.Signal(syscall.SIGCONT) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t, durable...)
			all := three(t, redis, quiet)
			before := all[0].usage()
			c := check(t, all, 6, 4, *pace)
			f := listen(t, all[1], "free")
			c.more(200)

			fault.away(redis)
			refused := refusals(t, c)
			// 30 s, and long enough that each replica counts its reports to the
			// Store as lost.
			began := time.Now()
			tick := time.NewTicker(*pace)
			defer tick.Stop()
			for missed, looked := 0, time.Now(); missed < len(all) || time.Since(began) < 30*time.Second; <-tick.C {
				f.publish(all[0])
				if time.Since(looked) > time.Second {
					missed, looked = 0, time.Now()
					for _, r := range all {
						if slices.Contains(r.nodes()[r.name].Reasons, "reports lost: store") {
							missed++
						}
					}
				}
			}
			refused()
			fault.back(redis)

			c.more(200)
			f.publish(all[0])
			c.verify()
			green(t, all...)
			all[0].back(before)
		})
	}
}

// refusals publishes with history three times a second until the returned
// function is called. That function requires that each message was refused
// because the Store is down, within the hub's StoreTimeout.
func refusals(t *testing.T, c *checked) (end func()) {
	const storeTimeout, grace = 5 * time.Second, 2 * time.Second // the default; for a busy machine
	away, back := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	var refused atomic.Int64
	posting.Go(func() { // ends with back
		tick := time.NewTicker(time.Second / 3)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-away.Done():
				return
			case <-tick.C:
			}
			posting.Go(func() { // does not wait for the one before
				id, began := fmt.Sprint("away-", i), time.Now()
				_, err := post(patient, c.replicas[i%len(c.replicas)], kept, `"`+id+`"`, id)
				took := time.Since(began)
				if err != (errRefused{http.StatusServiceUnavailable, "store_unavailable"}) || took >= storeTimeout+grace {
					c.fail("%s, while the Store is down, after %s: %w", id, took, err)
				}
				refused.Add(1)
			})
		}
	})
	stop := func() {
		back()
		posting.Wait()
	}
	t.Cleanup(stop)
	return func() {
		t.Helper()
		stop()
		require.Greater(t, refused.Load(), int64(20))
		c.noFailure()
	}
}

// 300 clients move from replica to replica while each replica is restarted.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	all := three(t, redistest.Start(t))
	c := check(t, all, 300, 2, 40*time.Millisecond)
	for _, r := range all {
		c.more(30)
		r.terminate()
		c.more(30)
		r.start()
		linked(t, all...)
	}
	c.more(30)
	held := all[0].usage()
	c.verify()
	green(t, all...)
	eventually(t, "none of the clients' connections is left", func() bool { return all[0].usage().files < max(60, held.files/2) })
}

// A replica that does not know the key, or whose certificate is from another
// authority, is not let in, and the others go on.
func TestStrangerIsNotLetIn(t *testing.T) {
	t.Parallel()
	ours, another := certtest.NewAuthority(), certtest.NewAuthority()
	withTLS := func(a *certtest.Authority) []string {
		cert, key := a.Files(t.TempDir(), "127.0.0.1")
		return []string{"-mesh-cert", cert, "-mesh-tls-key", key, "-mesh-ca", ours.CAFile(t.TempDir())}
	}
	withKey := func(key string) []string { return []string{"-mesh-key-file", secret(t, key)} }
	good := withKey("the key of all replicas")
	for _, test := range []struct {
		name  string
		flags [][]string // of two replicas and of the stranger
	}{
		{"wrong key", [][]string{good, good, withKey("the key of somebody else")}},
		{"wrong certificate", [][]string{withTLS(ours), withTLS(ours), withTLS(another)}}, // it trusts the others
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			var all []*replica
			for i, flags := range test.flags {
				r := newReplica(t, string(rune('a'+i)), "127.0.0.1", nil, "-redis", "redis://"+redis.Addr+"/0")
				r.argv = append(r.argv, flags...)
				all = append(all, r)
				r.launch()
			}
			eventually(t, "the two replicas are linked and refuse the third", func() bool {
				for _, r := range all[:2] {
					if n := r.nodes()[r.name]; n.Mesh.Up != 1 || n.Mesh.Refused == 0 {
						return false
					}
				}
				n, known := all[2].nodes()["c"]
				return known && n.Mesh.Up == 0
			})
			deaf := listen(t, all[2], "free")
			f := listen(t, all[1], "free")
			for range 200 {
				f.publish(all[0])
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, b, err := deaf.ws.Read(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded, "the third replica received %s", b)
			// It finds messages with positions in the Store, which it shares.
			c := check(t, all, 3, 2, *pace)
			c.more(200)
			c.verify()
		})
	}
}

// Whatever connects to the port of the mesh, the replicas go on and do not keep
// such connections.
func TestGarbageAtTheMeshPort(t *testing.T) {
	t.Parallel()
	all := three(t, redistest.Start(t))
	c := check(t, all, 3, 2, *pace)
	f := listen(t, all[1], "free")
	c.more(50)
	before := all[0].usage()
	peers := shout(t, all[0].mesh, 1000)
	for range 200 {
		f.publish(all[0])
	}
	c.more(200)
	eventually(t, "the replica closes all of them", func() bool { return peers.Load() == 0 })
	green(t, all...)
	c.verify()
	all[0].back(before)
	require.Positive(t, all[0].nodes()["a"].Mesh.Refused)
}
