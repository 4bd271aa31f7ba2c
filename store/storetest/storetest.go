// Package storetest checks that a [store.Store] keeps the promises of its
// interface:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { return mystore.New(…) })
//	}
//
// The Store may be slow and need not be empty: each case uses names of its own.
// Cases may run concurrently on one server.
package storetest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// Case is one promise of a Store.
type Case struct {
	Name    string
	Explain string // what is promised, and why; logged if the case fails
	Check   func(t *testing.T, s store.Store)
}

// Run checks all [Cases] in parallel subtests. Each gets a Store from open,
// which must allow concurrent calls; Run closes the Store. Run takes a little
// longer than [store.DeadAfter]. A case that hangs for 4 minutes ends the test
// binary with a dump of all goroutines. Run does not check that Replicas forgets a
// replica after [store.ForgottenAfter], since that takes a minute.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.Run(t, open)
		})
	}
}

// Run checks one case in t itself. A Store that does no I/O may be checked
// inside a testing/synctest bubble, where waiting takes no time.
func (c Case) Run(t *testing.T, open func(t *testing.T) store.Store) {
	basetest.Promise(t, c.Explain, 4*time.Minute)
	s := open(t)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	c.Check(t, s)
}

// Cases returns all cases of [Run].
func Cases() []Case {
	return slices.Concat(logCases, bytesCases, keyCases, registryCases, presenceCases, holdCases, lifeCases)
}

// plenty are the limits for cases that are not about limits.
var plenty = store.AppendOptions{Size: 10_000, TTL: time.Hour}

// unique returns a name that no other case uses.
func unique(what string) string { return "storetest-" + what + "-" + rand.Text()[:12] + "-" }

// body returns a JSON body.
func body(i int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)) }

// appendN appends n entries with the bodies 1 … n, and returns the last position.
func appendN(t *testing.T, s store.Store, channel string, n int, o store.AppendOptions) (last store.Position) {
	t.Helper()
	for i := 1; i <= n; i++ {
		last = appendOne(t, s, channel, store.Entry{Header: "h", Body: body(i)}, o)
	}
	return last
}

// appendOne appends an entry that is no duplicate.
func appendOne(t *testing.T, s store.Store, channel string, e store.Entry, o store.AppendOptions) store.Position {
	t.Helper()
	done, err := s.Append(t.Context(), channel, e, o)
	require.NoError(t, err)
	require.False(t, done.Duplicate)
	return done.Position
}

// read reads a part of a log.
func read(t *testing.T, s store.Store, channel string, q store.Query) store.Page {
	t.Helper()
	p, err := s.Range(t.Context(), channel, q)
	require.NoError(t, err)
	return p
}

// readAll reads a log that has few entries.
func readAll(t *testing.T, s store.Store, channel string) store.Page {
	t.Helper()
	return read(t, s, channel, store.Query{Limit: 1 << 20})
}

// readN reads a log that must have n entries.
func readN(t *testing.T, s store.Store, channel string, n int) []store.Entry {
	t.Helper()
	p := readAll(t, s, channel)
	require.Len(t, p.Entries, n)
	return p.Entries
}

// offsets returns the offsets of the page's entries.
func offsets(p store.Page) []uint64 {
	offs := []uint64{}
	for _, e := range p.Entries {
		offs = append(offs, e.Offset)
	}
	return offs
}

var eventually = basetest.Eventually

// requireAbsent checks that p is what Range returns for an absent log.
func requireAbsent(t *testing.T, p store.Page) {
	t.Helper()
	require.Empty(t, p.Entries)
	require.Zero(t, p.Top)
	require.Zero(t, p.First)
}

// replica returns a replica as Replicas shows it.
func replica(t *testing.T, s store.Store, id string) store.Replica {
	t.Helper()
	replicas, err := s.Replicas(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(replicas, func(n store.Replica) bool { return n.ID == id })
	require.GreaterOrEqual(t, i, 0, "Replicas does not show %q", id)
	return replicas[i]
}

// replicaIDs returns the replicas of one case.
func replicaIDs(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	replicas, err := s.Replicas(t.Context())
	require.NoError(t, err)
	ids := []string{}
	for _, n := range replicas {
		if strings.HasPrefix(n.ID, prefix) {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// report records a replica's numbers.
func report(t *testing.T, s store.Store, id string, full bool, counts ...store.Count) (known bool) {
	t.Helper()
	known, err := s.Report(t.Context(), store.Report{Replica: store.Replica{ID: id}, Full: full, Channels: counts})
	require.NoError(t, err)
	return known
}

// channels returns a page of Channels.
func channels(t *testing.T, s store.Store, prefix, after string, limit int) []store.Count {
	t.Helper()
	counts, err := s.Channels(t.Context(), prefix, after, limit)
	require.NoError(t, err)
	return append([]store.Count{}, counts...)
}

// count returns the numbers of one channel.
func count(t *testing.T, s store.Store, channel string) store.Count {
	t.Helper()
	c, err := s.Channel(t.Context(), channel)
	require.NoError(t, err)
	return c
}

// top returns the last position of a log.
func top(t *testing.T, s store.Store, channel string) store.Position {
	t.Helper()
	tops, err := s.Tops(t.Context(), []string{channel})
	require.NoError(t, err)
	require.Len(t, tops, 1)
	return tops[0]
}

// join and leave return a change of presence.
func join(channel, id string) store.PresenceChange {
	return store.PresenceChange{Channel: channel, Member: store.Member{ID: id, User: "user of " + id}}
}

func leave(channel, id string) store.PresenceChange {
	return store.PresenceChange{Channel: channel, Member: store.Member{ID: id}, Left: true}
}

// update applies changes of presence.
func update(t *testing.T, s store.Store, replica string, changes ...store.PresenceChange) {
	t.Helper()
	require.NoError(t, s.UpdatePresence(t.Context(), replica, changes))
}

// members returns the IDs of up to limit members, and the total.
func members(t *testing.T, s store.Store, channel string, limit int) (ids []string, total int) {
	t.Helper()
	ms, total, err := s.Members(t.Context(), channel, limit)
	require.NoError(t, err)
	ids = []string{}
	for _, m := range ms {
		ids = append(ids, m.ID)
	}
	return ids, total
}
