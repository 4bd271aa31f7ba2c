package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var registryCases = []Case{
	{"ReplicasSorted", "Replicas returns replicas sorted by ID, with Started and Info as last reported, and Seen by the Store's clock. Bytes are not shared.", replicasSorted},
	{"SilentGrows", "Silent is how long ago the last Report was when Replicas was called, even if no replica reports any more.", silentGrows},
	{"ReportKnown", "Report returns true if a living record of the replica existed before, and false otherwise.", reportKnown},
	{"SumsOverReplicas", "Channels and Channel return the sums over all replicas. A Report changes only the channels it names.", sumsOverReplicas},
	{"ZeroCountsVanish", "A channel leaves Channels when all its numbers are zero.", zeroCountsVanish},
	{"ChannelsPages", "Channels returns the names that begin with prefix and are greater than after, in byte order, up to limit.", channelsPages},
	{"FullReplaces", "A Report with Full replaces the channels that its replica reported before, and no other replica's.", fullReplaces},
	{"ForgetRemoves", "Forget removes a replica and all that it reported, at once. An unknown replica is not an error.", forgetRemoves},
	{"DeadReplicaVanishes", "DeadAfter after its last Report, everything that a replica reported leaves every answer, its presence included. Only Replicas still shows the replica, with Seen of that Report and Silent. If it comes back, it is unknown, and only what it reports anew counts.", deadReplicaVanishes},
}

func replicasSorted(t *testing.T, s store.Store) {
	ctx := t.Context()
	base := unique("node")
	started := time.Now().Add(-time.Hour)
	for _, id := range []string{"c", "a", "B", "ä"} {
		info := json.RawMessage(`{"id":"` + id + `"}`)
		_, err := s.Report(ctx, store.Report{Replica: store.Replica{ID: base + id, Started: started, Info: info}})
		require.NoError(t, err)
		copy(info, `{"id":"?`)
	}
	require.Equal(t, []string{base + "B", base + "a", base + "c", base + "ä"}, replicaIDs(t, s, base))
	for range 2 { // the second time after overwriting the first answer
		replicas, err := s.Replicas(ctx)
		require.NoError(t, err)
		for _, n := range replicas {
			if id, mine := strings.CutPrefix(n.ID, base); mine {
				require.Equal(t, `{"id":"`+id+`"}`, string(n.Info))
				require.WithinDuration(t, started, n.Started, time.Millisecond)
				require.WithinDuration(t, time.Now(), n.Seen, time.Hour)
				clear(n.Info)
			}
		}
	}

	_, err := s.Report(ctx, store.Report{Replica: store.Replica{ID: base + "a", Started: started, Info: json.RawMessage(`"new"`)}})
	require.NoError(t, err)
	require.Equal(t, `"new"`, string(replica(t, s, base+"a").Info))
}

func silentGrows(t *testing.T, s store.Store) {
	id := unique("node")
	began := time.Now()
	report(t, s, id, false)
	reported := time.Now()
	for _, least := range []time.Duration{0, 300 * time.Millisecond, 600 * time.Millisecond} {
		eventually(t, "it is silent for "+least.String(), func() bool {
			asked := time.Now()
			silent := replica(t, s, id).Silent
			// A millisecond at each end, since a Store may keep no more
			// precision.
			require.LessOrEqual(t, silent, time.Since(began)+2*time.Millisecond)
			require.GreaterOrEqual(t, silent, asked.Sub(reported)-2*time.Millisecond)
			return silent >= least
		})
	}
	before := replica(t, s, id).Silent
	began = time.Now()
	report(t, s, id, false)
	silent := replica(t, s, id).Silent
	require.LessOrEqual(t, silent, time.Since(began)+2*time.Millisecond)
	require.Less(t, silent, before, "it has reported again")
}

func reportKnown(t *testing.T, s store.Store) {
	a, b := unique("a"), unique("b")
	require.False(t, report(t, s, a, false))
	require.True(t, report(t, s, a, false))
	require.True(t, report(t, s, a, true))
	require.False(t, report(t, s, b, true), "Full does not make a replica known")
	require.True(t, report(t, s, b, false))
	require.NoError(t, s.Forget(t.Context(), a))
	require.False(t, report(t, s, a, false))
	require.True(t, report(t, s, a, false))
}

func sumsOverReplicas(t *testing.T, s store.Store) {
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true, store.Count{Channel: ch + "1", Subscribers: 3, Publishes: 7}, store.Count{Channel: ch + "2", Subscribers: 1})
	// The report of an unknown replica counts too.
	report(t, s, b, false, store.Count{Channel: ch + "1", Subscribers: 2}, store.Count{Channel: ch + "3", Publishes: 4})
	require.Equal(t, []store.Count{
		{Channel: ch + "1", Subscribers: 5, Publishes: 7},
		{Channel: ch + "2", Subscribers: 1},
		{Channel: ch + "3", Publishes: 4},
	}, channels(t, s, ch, "", 10))

	report(t, s, a, false, store.Count{Channel: ch + "1", Subscribers: 1, Publishes: 1})
	report(t, s, b, false)
	require.Equal(t, []store.Count{
		{Channel: ch + "1", Subscribers: 3, Publishes: 1},
		{Channel: ch + "2", Subscribers: 1},
		{Channel: ch + "3", Publishes: 4},
	}, channels(t, s, ch, "", 10))

	for name, want := range map[string]store.Count{
		ch + "1": {Channel: ch + "1", Subscribers: 3, Publishes: 1},
		ch + "3": {Channel: ch + "3", Publishes: 4},
		ch + "4": {Channel: ch + "4"},
	} {
		require.Equal(t, want, count(t, s, name))
	}
}

func zeroCountsVanish(t *testing.T, s store.Store) {
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true,
		store.Count{Channel: ch + "1", Subscribers: 1, Publishes: 1},
		store.Count{Channel: ch + "2", Subscribers: 1},
		store.Count{Channel: ch + "3"})
	report(t, s, b, true, store.Count{Channel: ch + "2", Subscribers: 1})
	require.Len(t, channels(t, s, ch, "", 10), 2)

	report(t, s, a, false, store.Count{Channel: ch + "1", Publishes: 1}, store.Count{Channel: ch + "2"})
	require.Equal(t, []store.Count{
		{Channel: ch + "1", Publishes: 1},
		{Channel: ch + "2", Subscribers: 1},
	}, channels(t, s, ch, "", 10))

	report(t, s, a, false, store.Count{Channel: ch + "1"}, store.Count{Channel: ch + "never"})
	report(t, s, b, false, store.Count{Channel: ch + "2"})
	require.Empty(t, channels(t, s, ch, "", 10))
	require.Equal(t, store.Count{Channel: ch + "1"}, count(t, s, ch+"1"))

	report(t, s, a, false, store.Count{Channel: ch + "1", Subscribers: 2})
	require.Equal(t, []store.Count{{Channel: ch + "1", Subscribers: 2}}, channels(t, s, ch, "", 10))
}

func channelsPages(t *testing.T, s store.Store) {
	a, b, base := unique("a"), unique("b"), unique("ch")
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint(base, "n", i))
	}
	names = append(names, base, base+"*", base+"N1", base+"[n]", base+"n", base+"n1\x00", base+"n1:", base+"nß", base+"zoë", base+"世界", base+"\U0010ffff")
	for i, name := range names {
		// Each replica has every second channel; some are on both.
		if i%2 == 0 || i%5 == 0 {
			report(t, s, a, false, store.Count{Channel: name, Subscribers: 1})
		}
		if i%2 == 1 || i%5 == 0 {
			report(t, s, b, false, store.Count{Channel: name, Subscribers: 1})
		}
	}
	slices.Sort(names)

	get := func(prefix, after string, limit int) []string {
		got := []string{}
		for _, c := range channels(t, s, prefix, after, limit) {
			got = append(got, c.Channel)
		}
		return got
	}
	withPrefix := func(prefix, after string, limit int) []string {
		want := []string{}
		for _, n := range names {
			if strings.HasPrefix(n, prefix) && n > after && len(want) < limit {
				want = append(want, n)
			}
		}
		return want
	}
	require.Equal(t, names, get(base, "", 1000))
	for _, limit := range []int{1, 7, len(names)} {
		var all []string
		for after := ""; ; {
			report(t, s, a, false) // so many calls may take longer than DeadAfter on a slow server
			report(t, s, b, false)
			page := get(base, after, limit)
			require.LessOrEqual(t, len(page), limit)
			if len(page) == 0 {
				break
			}
			require.Greater(t, page[0], after)
			all = append(all, page...)
			after = page[len(page)-1]
		}
		require.Equal(t, names, all, "in pages of %d", limit)
	}
	for _, prefix := range []string{base, base + "n", base + "n1", base + "n1:", base + "N", base + "*", base + "[", base + "世", base + "none"} {
		require.True(t, report(t, s, a, false))
		require.True(t, report(t, s, b, false))
		for _, after := range []string{"", base, base + "n", base + "n1", base + "n15", base + "n2", base + "n39x", base + "~", "\U0010ffff"} {
			for _, limit := range []int{0, 1, 3, 1000} {
				require.Equal(t, withPrefix(prefix, after, limit), get(prefix, after, limit), "%q after %q limit %d", prefix, after, limit)
			}
		}
	}
}

func fullReplaces(t *testing.T, s store.Store) {
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true, store.Count{Channel: ch + "1", Subscribers: 1}, store.Count{Channel: ch + "2", Subscribers: 2})
	report(t, s, b, true, store.Count{Channel: ch + "1", Subscribers: 10})
	report(t, s, a, true, store.Count{Channel: ch + "2", Subscribers: 3}, store.Count{Channel: ch + "3", Subscribers: 4})
	require.Equal(t, []store.Count{
		{Channel: ch + "1", Subscribers: 10},
		{Channel: ch + "2", Subscribers: 3},
		{Channel: ch + "3", Subscribers: 4},
	}, channels(t, s, ch, "", 10))
	report(t, s, a, true)
	require.Equal(t, []store.Count{{Channel: ch + "1", Subscribers: 10}}, channels(t, s, ch, "", 10))
	require.Equal(t, []string{a}, replicaIDs(t, s, a))
}

func forgetRemoves(t *testing.T, s store.Store) {
	ctx := t.Context()
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true, store.Count{Channel: ch, Subscribers: 1, Publishes: 2})
	report(t, s, b, true, store.Count{Channel: ch, Subscribers: 4})
	update(t, s, a, join(ch, "on a"))
	update(t, s, b, join(ch, "on b"))

	require.NoError(t, s.Forget(ctx, a))
	require.Empty(t, replicaIDs(t, s, a))
	require.Equal(t, []string{b}, replicaIDs(t, s, b))
	require.Equal(t, []store.Count{{Channel: ch, Subscribers: 4}}, channels(t, s, ch, "", 10))
	ids, total := members(t, s, ch, 10)
	require.Equal(t, []string{"on b"}, ids)
	require.Equal(t, 1, total)

	require.NoError(t, s.Forget(ctx, a))
	require.NoError(t, s.Forget(ctx, unique("never")))
	report(t, s, a, false)
	require.Equal(t, []store.Count{{Channel: ch, Subscribers: 4}}, channels(t, s, ch, "", 10), "a forgotten replica's numbers came back")
	_, total = members(t, s, ch, 10)
	require.Equal(t, 1, total, "a forgotten replica's members came back")
}

func deadReplicaVanishes(t *testing.T, s store.Store) {
	ctx := t.Context()
	dead, alive, ch := unique("dead"), unique("alive"), unique("ch")
	report(t, s, alive, true, store.Count{Channel: ch, Subscribers: 1})
	update(t, s, alive, join(ch, "on alive"))
	before := time.Now()
	_, err := s.Report(ctx, store.Report{Replica: store.Replica{ID: dead, Info: json.RawMessage(`"last"`)}, Full: true,
		Channels: []store.Count{{Channel: ch, Subscribers: 2}, {Channel: ch + "only", Publishes: 1}}})
	require.NoError(t, err)
	update(t, s, dead, join(ch, "on dead"))
	after := time.Now()

	// Each answer is checked on its own. The replica is there until DeadAfter
	// has passed, and gone a little later. In between, both are right.
	answers := map[string]func() bool{
		"Channels": func() bool {
			return slices.Equal(channels(t, s, ch, "", 10), []store.Count{{Channel: ch, Subscribers: 1}})
		},
		"Channel": func() bool { return count(t, s, ch+"only") == store.Count{Channel: ch + "only"} },
		"Members": func() bool {
			ids, total := members(t, s, ch, 10)
			return total == 1 && slices.Equal(ids, []string{"on alive"})
		},
	}
	heartbeat := before
	for len(answers) > 0 {
		if now := time.Now(); now.Sub(heartbeat) > store.DeadAfter/5 {
			heartbeat = now
			require.True(t, report(t, s, alive, false), "the living replica must report in time")
		}
		for name, gone := range answers {
			if gone() {
				require.Greater(t, time.Since(before), store.DeadAfter-time.Second, "%s: gone too early", name)
				delete(answers, name)
				continue
			}
			// A heartbeat is kept for DeadAfter, and a server may take a little
			// longer. Slow answers do not count against it.
			require.Less(t, time.Since(after), store.DeadAfter+5*time.Second, "%s: not gone", name)
		}
		sleep(ctx, 200*time.Millisecond)
	}

	living, silent := replica(t, s, alive), replica(t, s, dead)
	require.GreaterOrEqual(t, living.Seen.Sub(silent.Seen), store.DeadAfter-time.Second-store.DeadAfter/5, "Seen is not the time of the last Report")
	require.GreaterOrEqual(t, silent.Silent, store.DeadAfter-time.Second)
	require.Less(t, living.Silent, silent.Silent)
	require.Equal(t, `"last"`, string(silent.Info))

	update(t, s, dead, join(ch, "dropped"))
	require.False(t, report(t, s, dead, false))
	require.Equal(t, []store.Count{{Channel: ch, Subscribers: 1}}, channels(t, s, ch, "", 10), "numbers came back from the dead")
	ids, _ := members(t, s, ch, 10)
	require.Equal(t, []string{"on alive"}, ids, "members came back from the dead")
	require.True(t, report(t, s, dead, true, store.Count{Channel: ch, Subscribers: 5}))
	require.Equal(t, []store.Count{{Channel: ch, Subscribers: 6}}, channels(t, s, ch, "", 10))
}

// sleep pauses between two attempts.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
