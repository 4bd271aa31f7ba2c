package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

func TestMemoryTTL(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := store.AppendOptions{Size: 10, TTL: time.Minute}
		for range 3 {
			mustAppend(t, m, "ch", "1", o)
			time.Sleep(20 * time.Second)
		}
		p := readAll(t, m, "ch") // one is a minute old now
		require.Len(t, p.Entries, 2)
		require.EqualValues(t, 2, p.First)
		time.Sleep(40*time.Second - 1)
		require.Len(t, readAll(t, m, "ch").Entries, 1)
		time.Sleep(time.Nanosecond)
		p = readAll(t, m, "ch")
		require.Empty(t, p.Entries)
		require.EqualValues(t, 4, p.First)
		require.EqualValues(t, 3, p.Top.Offset)

		// Expired entries do not come back with a longer TTL.
		mustAppend(t, m, "ch", "4", store.AppendOptions{Size: 10, TTL: time.Hour})
		require.EqualValues(t, 4, readAll(t, m, "ch").First)
	})
}

func TestMemoryMetaTTL(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := store.AppendOptions{Size: 10, TTL: time.Minute}
		first := mustAppend(t, m, "ch", "1", o)
		time.Sleep(store.MetaTTL - 1)
		second := mustAppend(t, m, "ch", "2", o)
		require.Equal(t, store.Position{Epoch: first.Epoch, Offset: 2}, second)

		time.Sleep(store.MetaTTL)
		require.Equal(t, store.Position{}, top(t, m, "ch"))
		require.Equal(t, store.Page{}, readAll(t, m, "ch"))
		reborn := mustAppend(t, m, "ch", "3", o)
		require.EqualValues(t, 1, reborn.Offset)
		require.NotEqual(t, first.Epoch, reborn.Epoch)

		time.Sleep(store.MetaTTL)
		again := mustAppend(t, m, "ch", "4", o) // without a lookup in between
		require.EqualValues(t, 1, again.Offset)
		require.NotEqual(t, reborn.Epoch, again.Epoch)
	})
}

// A log without entries that nobody asks for ends soon, and one that has had some does not.
func TestMemoryEmptyTTL(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		begin := func(channel string) store.Position {
			pos, err := m.Begin(t.Context(), channel)
			require.NoError(t, err)
			return pos
		}
		first, used := begin("ch"), begin("used")
		mustAppend(t, m, "used", "1", store.AppendOptions{Size: 10, TTL: time.Minute})
		for range 3 {
			time.Sleep(store.EmptyTTL - time.Second)
			require.Equal(t, first, top(t, m, "ch"))
			time.Sleep(store.EmptyTTL - time.Second)
			require.Equal(t, first, begin("ch"))
		}
		time.Sleep(store.EmptyTTL)
		require.Equal(t, store.Position{}, top(t, m, "ch"))
		require.Equal(t, store.Position{Epoch: used.Epoch, Offset: 1}, top(t, m, "used"))
		require.NotEqual(t, first.Epoch, begin("ch").Epoch)
	})
}

// A log without Appends lives as long as someone asks for it.
func TestMemoryMetaLivesWhileItIsAskedFor(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := store.AppendOptions{Size: 10, TTL: time.Minute}
		asked := mustAppend(t, m, "asked", "1", o)
		mustAppend(t, m, "forgotten", "1", o)
		for i := range 5 {
			time.Sleep(store.MetaTTL - 1)
			if i%2 == 0 {
				require.Equal(t, asked, top(t, m, "asked"))
			} else {
				require.Equal(t, asked, readAll(t, m, "asked").Top)
			}
			mustAppend(t, m, "other", "1", o) // this looks at expired logs
		}
		require.Equal(t, store.Position{}, top(t, m, "forgotten"))
		next := mustAppend(t, m, "asked", "2", o)
		require.Equal(t, store.Position{Epoch: asked.Epoch, Offset: 2}, next)
		time.Sleep(store.MetaTTL)
		require.Equal(t, store.Position{}, top(t, m, "asked"))
	})
}

// Logs that nobody asks for are freed, even if other logs are asked for.
func TestMemoryForgetsBehindALogThatIsAskedFor(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := store.AppendOptions{Size: 10, TTL: time.Minute}
		mustAppend(t, m, "asked", "1", o)
		for i := range 50 {
			mustAppend(t, m, fmt.Sprint("forgotten ", i), "1", o)
		}
		time.Sleep(time.Hour)
		for range 200 {
			mustAppend(t, m, "other", "1", o)
		}
		top(t, m, "asked")
		for range 3 {
			time.Sleep(store.MetaTTL - 1)
			top(t, m, "asked")
			for range 200 {
				mustAppend(t, m, "other", "1", o)
			}
		}
		require.Equal(t, 2, m.Logs())
	})
}

// A position lives as long as anything refers to it.
func TestMemoryMetaOutlivesEntriesAndKeys(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		const week = 7 * 24 * time.Hour
		entry := mustAppend(t, m, "entry", "1", store.AppendOptions{Size: 1, TTL: week})
		o := store.AppendOptions{Size: 1, TTL: time.Minute, Key: "k", KeyTTL: week}
		key := mustAppend(t, m, "key", "1", o)
		time.Sleep(week - 1)
		require.Len(t, readAll(t, m, "entry").Entries, 1)
		require.Equal(t, entry, top(t, m, "entry"))
		done, err := m.Append(t.Context(), "key", store.Entry{}, o)
		require.NoError(t, err)
		require.True(t, done.Duplicate)
		require.Equal(t, key, done.Position)
		time.Sleep(store.MetaTTL - 1)
		o.Key = ""
		require.Equal(t, store.Position{Epoch: key.Epoch, Offset: 2}, mustAppend(t, m, "key", "2", o), "MetaTTL also counts from a duplicate")
		time.Sleep(time.Nanosecond)
		require.Equal(t, store.Position{}, top(t, m, "entry"))
		time.Sleep(store.MetaTTL)
		require.Equal(t, store.Position{}, top(t, m, "key"))
	})
}

func TestMemoryKeyTTL(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := plenty
		ttls := map[string]time.Duration{"a": time.Hour, "b": time.Second, "c": time.Minute, "d": 2 * time.Hour, "e": time.Second}
		for _, o.Key = range []string{"a", "b", "c", "d", "e"} {
			o.KeyTTL = ttls[o.Key]
			mustAppend(t, m, "ch", `"`+o.Key+`"`, o)
		}
		start := time.Now()
		full := m.Bytes()
		seen := func(key string) bool {
			// Only a remembered key adds nothing.
			o := plenty
			o.Key, o.KeyTTL = key, time.Millisecond
			done, err := m.Append(t.Context(), "ch", store.Entry{}, o)
			require.NoError(t, err)
			return done.Duplicate
		}
		for _, step := range []time.Duration{time.Second, time.Minute, time.Hour, 2 * time.Hour} {
			time.Sleep(step - 1 - time.Since(start))
			for key, ttl := range ttls {
				require.Equal(t, ttl >= step, seen(key), "%s before %v", key, step)
			}
			time.Sleep(10 * time.Millisecond)
			for key, ttl := range ttls {
				require.Equal(t, ttl > step, seen(key), "%s after %v", key, step)
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.Positive(t, full)
	})
}

func TestMemoryDeadAfter(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		ctx := t.Context()
		rep := store.Report{Replica: store.Replica{ID: "a"}, Channels: []store.Count{{Channel: "ch", Subscribers: 1}}}
		heartbeat := store.Report{Replica: store.Replica{ID: "a"}}
		join := func(id string) {
			require.NoError(t, m.UpdatePresence(ctx, "a", []store.PresenceChange{{Channel: "ch", Member: store.Member{ID: id}}}))
		}
		requireCounts := func(subscribers, members int) {
			t.Helper()
			c, err := m.Channel(ctx, "ch")
			require.NoError(t, err)
			require.Equal(t, subscribers, c.Subscribers)
			_, total, err := m.Members(ctx, "ch", 10)
			require.NoError(t, err)
			require.Equal(t, members, total)
		}
		replicas := func(n int) []store.Replica {
			t.Helper()
			all, err := m.Replicas(ctx)
			require.NoError(t, err)
			require.Len(t, all, n)
			return all
		}
		report(t, m, rep)
		join("x")
		for range 3 {
			time.Sleep(store.DeadAfter - 1)
			require.True(t, report(t, m, heartbeat))
		}
		// Presence lives only by reports.
		time.Sleep(store.DeadAfter - 1)
		join("y")
		replicas(1)
		requireCounts(1, 2)

		time.Sleep(time.Nanosecond)
		requireCounts(0, 0)
		join("z")
		requireCounts(0, 0)
		require.False(t, report(t, m, heartbeat))

		// The replica itself is shown longer.
		seen := replicas(1)[0].Seen
		time.Sleep(store.ForgottenAfter - 1)
		require.Equal(t, seen, replicas(1)[0].Seen)
		time.Sleep(time.Nanosecond)
		replicas(0)
		require.Zero(t, m.Bytes())
	})
}
