package storetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var presenceCases = []Case{
	{"PresenceInOrder", "Changes apply in the given order. Leaving without having joined, or twice, is not an error. Joining again replaces the member's data.", presenceInOrder},
	{"MembersSorted", "Members returns the members of all replicas, sorted by ID, up to limit, and the total.", membersSorted},
	{"MembersComeBackWhole", "User and Info come back as given. Their bytes are not shared with the caller.", membersComeBackWhole},
	{"FullReplacesPresence", "A Report with Full replaces the members of its replica only. One without Full keeps them.", fullReplacesPresence},
	{"UnknownReplicaDropped", "Changes by a replica without a living record are dropped without an error.", unknownReplicaDropped},
	{"PresenceConcurrent", "Concurrent changes by many replicas all take effect.", presenceConcurrent},
}

func presenceInOrder(t *testing.T, s store.Store) {
	replica, ch, other := unique("node"), unique("ch"), unique("other")
	report(t, s, replica, true)
	ids, total := members(t, s, ch, 10)
	require.Empty(t, ids)
	require.Zero(t, total)

	update(t, s, replica)
	update(t, s, replica,
		leave(ch, "never"),
		join(ch, "a"), join(ch, "b"), join(ch, "c"),
		leave(ch, "a"), leave(ch, "a"), leave(ch, "b"),
		join(ch, "b"),
		join(other, "a"), leave(other, "c"))
	ids, total = members(t, s, ch, 10)
	require.Equal(t, []string{"b", "c"}, ids)
	require.Equal(t, 2, total)
	ids, _ = members(t, s, other, 10)
	require.Equal(t, []string{"a"}, ids)

	again := join(ch, "b")
	again.Member.User = "another"
	update(t, s, replica, again)
	ms, total, err := s.Members(t.Context(), ch, 10)
	require.NoError(t, err)
	require.Equal(t, 2, total)
	require.Equal(t, "another", ms[0].User)

	update(t, s, replica, leave(ch, "b"), leave(ch, "c"))
	ids, total = members(t, s, ch, 10)
	require.Empty(t, ids)
	require.Zero(t, total)
	ids, _ = members(t, s, other, 10)
	require.Equal(t, []string{"a"}, ids)
}

func membersSorted(t *testing.T, s store.Store) {
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true)
	report(t, s, b, true)
	var want []string
	for i := range 30 {
		id := fmt.Sprint("member ", i*7%30)
		want = append(want, id)
		report(t, s, a, false) // so many changes may take longer than DeadAfter on a slow server
		report(t, s, b, false)
		update(t, s, []string{a, b}[i%2], join(ch, id))
	}
	slices.Sort(want)
	for _, limit := range []int{0, 1, 7, 29, 30, 31, 1000} {
		ids, total := members(t, s, ch, limit)
		require.Equal(t, 30, total)
		require.Equal(t, want[:min(limit, 30)], ids, "limit %d", limit)
	}
}

func membersComeBackWhole(t *testing.T, s store.Store) {
	replica, ch := unique("node"), unique("ch")
	report(t, s, replica, true)
	want := []store.Member{
		{ID: "1", User: "Zoë 世界", Info: json.RawMessage(`{"name":"Zoë \" 🎉","n":[1,2]}`)},
		{ID: "2"},
		{ID: "{3}:*", User: "x"},
	}
	for _, m := range want {
		info := slices.Clone(m.Info)
		update(t, s, replica, store.PresenceChange{Channel: ch, Member: store.Member{ID: m.ID, User: m.User, Info: info}})
		clear(info)
	}
	for range 2 { // the second time after overwriting the first answer
		got, total, err := s.Members(t.Context(), ch, 10)
		require.NoError(t, err)
		require.Equal(t, len(want), total)
		require.Len(t, got, len(want))
		for i, m := range got {
			require.Equal(t, want[i].ID, m.ID)
			require.Equal(t, want[i].User, m.User)
			require.Equal(t, string(want[i].Info), string(m.Info))
			clear(m.Info)
		}
	}
}

func fullReplacesPresence(t *testing.T, s store.Store) {
	a, b, ch := unique("a"), unique("b"), unique("ch")
	report(t, s, a, true)
	report(t, s, b, true)
	update(t, s, a, join(ch, "1"), join(ch, "3"))
	update(t, s, b, join(ch, "2"))
	report(t, s, a, false)
	ids, _ := members(t, s, ch, 10)
	require.Equal(t, []string{"1", "2", "3"}, ids)
	report(t, s, a, true)
	ids, total := members(t, s, ch, 10)
	require.Equal(t, []string{"2"}, ids)
	require.Equal(t, 1, total)
	known, err := s.Report(t.Context(), store.Report{Replica: store.Replica{ID: a}, Full: true,
		Members: []store.PresenceChange{join(ch, "3"), join(ch, "4")}})
	require.NoError(t, err)
	require.True(t, known)
	ids, _ = members(t, s, ch, 10)
	require.Equal(t, []string{"2", "3", "4"}, ids)
}

func unknownReplicaDropped(t *testing.T, s store.Store) {
	replica, ch := unique("node"), unique("ch")
	update(t, s, replica, join(ch, "1"), leave(ch, "2"))
	_, total := members(t, s, ch, 10)
	require.Zero(t, total)
	report(t, s, replica, false)
	_, total = members(t, s, ch, 10)
	require.Zero(t, total, "a dropped change took effect later")
	update(t, s, replica, join(ch, "1"))
	_, total = members(t, s, ch, 10)
	require.Equal(t, 1, total)
}

func presenceConcurrent(t *testing.T, s store.Store) {
	const replicas, each = 6, 20
	ctx := t.Context()
	ch := unique("ch")
	var wg sync.WaitGroup
	for i := range replicas {
		replica := unique("node")
		report(t, s, replica, true)
		wg.Go(func() {
			for n := range each {
				id := fmt.Sprint(i, "/", n)
				changes := []store.PresenceChange{join(ch, id)}
				if n%2 == 1 {
					changes = append(changes, leave(ch, id))
				}
				_, err := s.Report(ctx, store.Report{Replica: store.Replica{ID: replica}, Channels: []store.Count{{Channel: ch, Subscribers: n + 1}}})
				if !assert.NoError(t, err) || !assert.NoError(t, s.UpdatePresence(ctx, replica, changes)) {
					return
				}
			}
		})
	}
	wg.Wait()
	_, total := members(t, s, ch, 1000)
	require.Equal(t, replicas*each/2, total)
	require.Equal(t, []store.Count{{Channel: ch, Subscribers: replicas * each}}, channels(t, s, ch, "", 10))
}
