package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plenty are limits that no test reaches.
var plenty = store.AppendOptions{Size: math.MaxInt, TTL: math.MaxInt64}

func newMemory(t testing.TB, maxBytes int64) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryOptions{MaxBytes: maxBytes})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// inBubble tests a Memory whose clock is faked.
func inBubble(t *testing.T, maxBytes int64, test func(t *testing.T, m *store.Memory)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { test(t, newMemory(t, maxBytes)) })
}

func openMemory(t *testing.T) store.Store { return newMemory(t, 0) }

func mustAppend(t testing.TB, m *store.Memory, channel, body string, o store.AppendOptions) store.Position {
	return appendEntry(t, m, channel, store.Entry{Header: "h", Body: json.RawMessage(body)}, o)
}

func appendEntry(t testing.TB, m *store.Memory, channel string, e store.Entry, o store.AppendOptions) store.Position {
	done, err := m.Append(t.Context(), channel, e, o)
	if err != nil || done.Duplicate { // require is slow, and this runs 100,000 times
		t.Helper()
		t.Fatal(done.Position, done.Duplicate, err)
	}
	return done.Position
}

func readAll(t testing.TB, m *store.Memory, channel string) store.Page {
	t.Helper()
	p, err := m.Range(t.Context(), channel, store.Query{Limit: math.MaxInt})
	require.NoError(t, err)
	return p
}

func top(t testing.TB, m *store.Memory, channel string) store.Position {
	t.Helper()
	tops, err := m.Tops(t.Context(), []string{channel})
	require.NoError(t, err)
	return tops[0]
}

// report makes a replica report.
func report(t testing.TB, m *store.Memory, r store.Report) (known bool) {
	t.Helper()
	known, err := m.Report(t.Context(), r)
	require.NoError(t, err)
	return known
}

func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, openMemory)
}

// With a fake clock, the cases that wait are exact and take no time.
func TestMemoryFakeClock(t *testing.T) {
	t.Parallel()
	for _, c := range storetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.Run(t, openMemory) })
		})
	}
}

func TestMemoryRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, maxBytes := range []int64{-1, 1, 4095, math.MinInt64} {
		m, err := store.NewMemory(store.MemoryOptions{MaxBytes: maxBytes})
		require.Nil(t, m)
		require.ErrorContains(t, err, fmt.Sprintf("MemoryOptions.MaxBytes is %d; it must be 0 (for 268435456) or at least 4096", maxBytes))
	}
	m := newMemory(t, 4096)
	for want, o := range map[string]store.AppendOptions{
		"AppendOptions.Size is 0; it must be at least 1":                      {TTL: time.Second},
		"AppendOptions.TTL is -1s; it must be at least 1ms":                   {Size: 1, TTL: -time.Second},
		"AppendOptions.KeyTTL is 999µs; with a Key it must be at least 1ms":   {Size: 1, TTL: time.Second, Key: "k", KeyTTL: 999 * time.Microsecond},
		"AppendOptions.TTL is 999.999µs; it must be at least 1ms":             {Size: 1, TTL: time.Millisecond - 1},
		"AppendOptions.Size is -9223372036854775808; it must be at least 1":   {Size: math.MinInt, TTL: time.Second},
		"AppendOptions.KeyTTL is -1ns; with a Key it must be at least 1ms":    {Size: 1, TTL: time.Second, Key: "k", KeyTTL: -1},
		"AppendOptions.TTL is 0s; it must be at least 1ms":                    {Size: 1},
		"AppendOptions.TTL is -2562047h47m16.854775808s; it must be at least": {Size: 1, TTL: math.MinInt64},
	} {
		_, err := m.Append(t.Context(), "ch", store.Entry{}, o)
		require.ErrorContains(t, err, want)
	}
	require.Zero(t, m.Logs())
}

func TestMemoryForever(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		o := plenty
		o.Key, o.KeyTTL = "k", math.MaxInt64
		first := mustAppend(t, m, "ch", "1", o)
		time.Sleep(50 * 365 * 24 * time.Hour)
		require.Len(t, readAll(t, m, "ch").Entries, 1)
		done, err := m.Append(t.Context(), "ch", store.Entry{}, o)
		require.NoError(t, err)
		require.True(t, done.Duplicate)
		require.Equal(t, first, done.Position)
	})
}

func TestMemoryPages100000Channels(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) { // so that no replica dies on a slow machine
		const n = 100_000
		counts := make([]store.Count, n)
		var names []string
		for i := range counts {
			name := fmt.Sprintf("%c%d", 'a'+i%26, i)
			names = append(names, name)
			counts[i] = store.Count{Channel: name, Subscribers: i + 1}
		}
		rand.Shuffle(n, func(i, j int) { counts[i], counts[j] = counts[j], counts[i] })
		slices.Sort(names)
		report(t, m, store.Report{Replica: store.Replica{ID: "a"}, Full: true, Channels: counts})
		report(t, m, store.Report{Replica: store.Replica{ID: "b"}, Full: true, Channels: counts[:n/2]})

		list := func(prefix string) (all []string, subscribers int) {
			for after := ""; ; {
				page, err := m.Channels(t.Context(), prefix, after, 1000)
				require.NoError(t, err)
				if len(page) == 0 {
					return all, subscribers
				}
				for _, c := range page {
					all = append(all, c.Channel)
					subscribers += c.Subscribers
				}
				after = page[len(page)-1].Channel
			}
		}
		want := n * (n + 1) / 2
		for _, c := range counts[:n/2] {
			want += c.Subscribers
		}
		all, subscribers := list("")
		require.True(t, slices.Equal(names, all))
		require.Equal(t, want, subscribers)

		all, _ = list("q1")
		require.True(t, slices.Equal(slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !strings.HasPrefix(s, "q1") }), all))

		require.NoError(t, m.Forget(t.Context(), "a"))
		all, _ = list("")
		require.Len(t, all, n/2)
		require.NoError(t, m.Forget(t.Context(), "b"))
		all, _ = list("")
		require.Empty(t, all)
		require.Zero(t, m.Bytes())
	})
}

// Logs are trimmed, expire and are evicted while many goroutines use them (run
// with -race). In the end, everything that was counted has been subtracted.
func TestMemoryConcurrentEviction(t *testing.T) {
	const maxBytes, workers, each, channels = 64 << 10, 8, 1000, 300
	inBubble(t, maxBytes, func(t *testing.T, m *store.Memory) {
		ctx := t.Context()
		var wg sync.WaitGroup
		for w := range workers {
			node := fmt.Sprint("node ", w)
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(w)))
				few := func() time.Duration { return time.Duration(1+r.IntN(20)) * time.Millisecond }
				for i := range each {
					ch := fmt.Sprint("channel ", r.IntN(channels))
					o := store.AppendOptions{Size: 1 + r.IntN(20), TTL: few()}
					if r.IntN(2) == 0 {
						o.Key, o.KeyTTL = fmt.Sprint("key ", r.IntN(50)), few()
					}
					_, err := m.Append(ctx, ch, store.Entry{Header: "h", Body: make([]byte, r.IntN(500))}, o)
					assert.NoError(t, err)
					p, err := m.Range(ctx, ch, store.Query{Limit: 100})
					assert.NoError(t, err)
					if p.Top.Offset != 0 {
						assert.Equal(t, p.Top.Offset+1, p.First+uint64(len(p.Entries)))
					}
					if i%20 == 0 {
						_, err = m.Report(ctx, store.Report{Replica: store.Replica{ID: node}, Full: i%100 == 0, Channels: []store.Count{{Channel: ch, Subscribers: r.IntN(2)}}})
						assert.NoError(t, err)
						// The same member IDs on all replicas, which should not
						// happen.
						assert.NoError(t, m.UpdatePresence(ctx, node, []store.PresenceChange{{Channel: ch, Member: store.Member{ID: "id"}, Left: r.IntN(2) == 0}}))
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, m.Bytes(), int64(maxBytes))
		require.Greater(t, m.Logs(), 10)

		time.Sleep(store.MetaTTL)
		_, err := m.Replicas(ctx)
		require.NoError(t, err)
		one := newMemory(t, maxBytes)
		for range channels {
			mustAppend(t, m, "ch", "1", store.AppendOptions{Size: 1, TTL: time.Second})
			mustAppend(t, one, "ch", "1", store.AppendOptions{Size: 1, TTL: time.Second})
		}
		require.Equal(t, 1, m.Logs())
		require.Equal(t, one.Bytes(), m.Bytes())
	})
}

// Who may subscribe to any channel can have any number of logs begin. That pushes out
// older ones of these, and no messages of others.
func TestMemoryBeginsPushOutNoEntries(t *testing.T) {
	m := newMemory(t, 1<<16)
	mustAppend(t, m, "real", "1", store.AppendOptions{Size: 10, TTL: time.Hour})
	for i := range 10_000 {
		at, err := m.Begin(t.Context(), fmt.Sprint("begun ", i))
		require.NoError(t, err)
		require.NotEmpty(t, at.Epoch)
	}
	page, err := m.Range(t.Context(), "real", store.Query{Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.LessOrEqual(t, m.Bytes(), int64(1<<16))
}

func TestMemoryCloseFrees(t *testing.T) {
	m := newMemory(t, 0)
	before := basetest.Heap()
	for i := range 20 {
		mustAppend(t, m, fmt.Sprint(i), strings.Repeat("x", 1<<20), plenty)
	}
	report(t, m, store.Report{Replica: store.Replica{ID: "a", Info: make([]byte, 10<<20)}})
	require.Greater(t, basetest.Heap()-before, int64(29<<20))
	require.NoError(t, m.Close())
	require.Less(t, basetest.Heap()-before, int64(5<<20))
	_, err := m.Replicas(context.Background())
	require.ErrorIs(t, err, store.ErrClosed)
}
