//go:build !windows

package redisstore_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore/redistest"
	"github.com/channels-go/channels/store/storetest"
)

// A killed server comes back with its last snapshot.
func TestRestartFromASnapshotLosesNoMeaning(t *testing.T) {
	t.Parallel()
	storetest.RunLosing(t, func(t *testing.T) storetest.Losing {
		r := redistest.Start(t)
		return storetest.Losing{
			Open: func(t *testing.T) store.Store { return open(t, r.Client()) },
			Save: func(*testing.T) { r.Do("SAVE") },
			Lose: func(*testing.T) {
				r.Kill()
				r.Start()
			},
		}
	})
}

// Two servers take turns as the master: the other one takes over while the old
// one still acknowledges, and then follows it.
func TestFailoverThereAndBackLosesNoMeaning(t *testing.T) {
	t.Parallel()
	storetest.RunLosing(t, func(t *testing.T) storetest.Losing {
		a := redistest.Start(t)
		b := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(a.Port))
		// Both have one address, which leads to the master.
		master := basetest.NewRelay(t, a.Addr)
		client := redistest.NewClient(t, master.Addr)
		return storetest.Losing{
			Open: func(t *testing.T) store.Store { return open(t, client) },
			Save: func(t *testing.T) {
				eventually(t, "the replica has it all", func() bool { return caughtUp(a, b) })
				b.Do("REPLICAOF", "NO", "ONE")
			},
			Lose: func(t *testing.T) {
				master.Lead(b.Addr)
				require.Equal(t, "OK", a.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(b.Port)))
				a, b = b, a
			},
		}
	})
}

// caughtUp reports whether a replica has all that its master has written.
func caughtUp(master, replica *redistest.Server) bool {
	return replica.Info("replication", "master_link_status") == "up" &&
		master.Info("replication", "master_repl_offset") == replica.Info("replication", "slave_repl_offset")
}
