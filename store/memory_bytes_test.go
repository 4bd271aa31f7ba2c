package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// The estimate must not be so low that the process takes much more than
// MaxBytes, nor so high that MaxBytes means nothing.
func TestMemoryCountsWhatItTakes(t *testing.T) {
	body := strings.Repeat("x", 100)
	short := store.AppendOptions{Size: 1000, TTL: plenty.TTL}
	keyed := func(i int) store.AppendOptions {
		return store.AppendOptions{Size: 1, TTL: time.Hour, Key: fmt.Sprint("idempotency key ", i), KeyTTL: time.Hour}
	}
	for name, c := range map[string]struct {
		times int
		add   func(t *testing.T, m *store.Memory, i int)
	}{
		"entries of one log": {40_000, func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, "ch", body, plenty) }},
		"trimmed log":        {40_000, func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, fmt.Sprint(i%20), body, short) }},
		"empty entries":      {40_000, func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, "ch", "", plenty) }},
		"entries with an info": {40_000, func(t *testing.T, m *store.Memory, i int) {
			appendEntry(t, m, "ch", store.Entry{Body: []byte(body), Info: []byte(body)}, plenty)
		}},
		"logs of one entry": {20_000, func(t *testing.T, m *store.Memory, i int) {
			mustAppend(t, m, fmt.Sprint("channel ", i), body, plenty)
		}},
		"keys":              {40_000, func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, "ch", "", keyed(i)) }},
		"a key in each log": {20_000, func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, fmt.Sprint(i), "", keyed(i)) }},
		"numbers of channels": {40_000, func(t *testing.T, m *store.Memory, i int) {
			counts := []store.Count{{Channel: fmt.Sprint("channel ", i), Subscribers: 1}}
			report(t, m, store.Report{Replica: store.Replica{ID: "a"}, Channels: counts})
		}},
		"members of one room": {40_000, func(t *testing.T, m *store.Memory, i int) { join(t, m, "ch", i) }},
		"held names": {40_000, func(t *testing.T, m *store.Memory, i int) {
			_, err := m.Hold(t.Context(), "a", store.Holding{Changes: []store.HoldChange{{Name: fmt.Sprint("name ", i), Data: []byte(`{"name":"somebody"}`)}}})
			require.NoError(t, err)
		}},
		"members of their own rooms": {20_000, func(t *testing.T, m *store.Memory, i int) { join(t, m, fmt.Sprint("channel ", i), i) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that no replica dies on a slow machine
				m := newMemory(t, 1<<30)
				report(t, m, store.Report{Replica: store.Replica{ID: "a"}}) // whose members count
				before := basetest.Heap()
				for i := range c.times {
					c.add(t, m, i)
				}
				ratio := float64(basetest.Heap()-before) / float64(m.Bytes())
				runtime.KeepAlive(m)
				t.Logf("%.1f MB, %.2f of the estimate", float64(m.Bytes())/1e6, ratio)
				require.InDelta(t, 0.9, ratio, 0.4)
			})
		})
	}
}

// join adds the ith member, one of replica a's.
func join(t *testing.T, m *store.Memory, channel string, i int) {
	require.NoError(t, m.UpdatePresence(t.Context(), "a", []store.PresenceChange{{Channel: channel, Member: store.Member{
		ID: fmt.Sprint("connection ", rand.Int64()), User: fmt.Sprint("user ", i), Info: json.RawMessage(`{"name":"somebody"}`),
	}}}))
}

func TestMemoryKeepsMaxBytes(t *testing.T) {
	t.Parallel()
	const maxBytes = 256 << 10
	body := strings.Repeat("x", 100)
	keyed := func(i int) store.AppendOptions {
		o := plenty
		o.Key, o.KeyTTL = fmt.Sprint("a key that nobody ever uses again, number ", i), time.Hour
		return o
	}
	for name, next := range map[string]func(t *testing.T, m *store.Memory, i int){
		"flood of channels": func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, fmt.Sprint(i), body, plenty) },
		"flood of entries":  func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, "ch", body, plenty) },
		"flood of keys":     func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, "ch", "1", keyed(i)) },
		"flood of infos": func(t *testing.T, m *store.Memory, i int) {
			appendEntry(t, m, "ch", store.Entry{Info: []byte(body)}, plenty)
		},
		"all at once": func(t *testing.T, m *store.Memory, i int) { mustAppend(t, m, fmt.Sprint(i%10*i), body, keyed(i)) },
		"large and small": func(t *testing.T, m *store.Memory, i int) {
			mustAppend(t, m, fmt.Sprint(i%100), strings.Repeat("x", i*i*i%(20<<10)), plenty)
		},
		"expired logs": func(t *testing.T, m *store.Memory, i int) {
			mustAppend(t, m, fmt.Sprint(i), body, store.AppendOptions{Size: 1, TTL: time.Millisecond})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, maxBytes)
			most := int64(0)
			for i := range 5000 {
				next(t, m, i)
				most = max(most, m.Bytes())
			}
			require.LessOrEqual(t, most, int64(maxBytes))
			require.Greater(t, most, int64(maxBytes*9/10), "more is evicted than necessary")
		})
	}
}

func TestMemoryEvictsLeastRecentlyAppended(t *testing.T) {
	t.Parallel()
	const logs = 100
	m := newMemory(t, 256<<10)
	body := strings.Repeat("x", 1000)
	tops := make(map[string]store.Position)
	for i := range logs {
		ch := fmt.Sprint(i)
		tops[ch] = mustAppend(t, m, ch, body, plenty)
	}
	require.Len(t, readAll(t, m, "0").Entries, 1, "nothing is evicted yet")
	tops["0"] = mustAppend(t, m, "0", body, plenty) // now the last appended
	readAll(t, m, "1")                              // reading doesn't count
	for m.Bytes() < 250<<10 {
		tops["hot"] = mustAppend(t, m, "hot", body, plenty)
	}
	tops["hot"] = mustAppend(t, m, "hot", strings.Repeat("x", 40_000), plenty)

	evicted := 0
	for i := 1; i < logs && len(readAll(t, m, fmt.Sprint(i)).Entries) == 0; i++ {
		evicted = i
	}
	require.InDelta(t, 40, evicted, 10)
	for i := evicted + 1; i < logs; i++ {
		require.Len(t, readAll(t, m, fmt.Sprint(i)).Entries, 1, "%d", i)
	}
	require.Len(t, readAll(t, m, "0").Entries, 2)
	for ch, want := range tops {
		require.Equal(t, want, top(t, m, ch), "an evicted log keeps its position")
	}
	p := readAll(t, m, "1")
	require.Equal(t, p.Top.Offset+1, p.First)
	again := mustAppend(t, m, "1", body, plenty)
	require.Equal(t, store.Position{Epoch: tops["1"].Epoch, Offset: 2}, again)
}

// An info is a part of its entry like the body.
func TestMemoryCountsInfos(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 16<<10)
	mustAppend(t, m, "ch", "1", plenty)
	before := m.Bytes()
	appendEntry(t, m, "ch", store.Entry{Header: "h", Body: []byte("1")}, plenty)
	without := m.Bytes() - before
	appendEntry(t, m, "ch", store.Entry{Header: "h", Body: []byte("1"), Info: make([]byte, 1000)}, plenty)
	require.Equal(t, before+2*without+1000, m.Bytes())

	_, err := m.Append(t.Context(), "ch", store.Entry{Info: make([]byte, 16<<10)}, plenty)
	require.ErrorContains(t, err, "does not fit into MemoryOptions.MaxBytes (16384)")
	require.Len(t, readAll(t, m, "ch").Entries, 3, "nothing was evicted for it")
}

// A log loses only as many of its oldest entries as necessary.
func TestMemoryEvictsOldestEntriesFirst(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 64<<10)
	var last store.Position
	for range 1000 {
		last = mustAppend(t, m, "ch", strings.Repeat("x", 400), plenty)
		p := readAll(t, m, "ch")
		require.Equal(t, last.Offset, p.Entries[len(p.Entries)-1].Offset)
	}
	p := readAll(t, m, "ch")
	require.Equal(t, last, p.Top)
	require.InDelta(t, 64<<10/(400+81), len(p.Entries), 5)
	require.Equal(t, p.Top.Offset+1, p.First+uint64(len(p.Entries)))
}

func TestMemoryEvictsPositionsOldestFirst(t *testing.T) {
	t.Parallel()
	const maxBytes = 64 << 10
	m := newMemory(t, maxBytes)
	var names []string
	tops := make(map[string]store.Position)
	for i := range 1000 {
		ch := fmt.Sprint("channel ", i)
		names = append(names, ch)
		tops[ch] = mustAppend(t, m, ch, strings.Repeat("x", 500), plenty)
	}
	known, entries := 0, 0
	for i, ch := range names {
		pos := top(t, m, ch)
		if known > 0 {
			require.Equal(t, tops[ch], pos, "%d: an older log is known, but not this one", i)
		}
		if pos != (store.Position{}) {
			known++
		}
		n := len(readAll(t, m, ch).Entries)
		if entries > 0 {
			require.Equal(t, 1, n, "%d: an older log has its entry, but not this one", i)
		}
		entries += n
	}
	require.Equal(t, known, m.Logs())
	// Half of the bytes is for positions alone, and half for logs with entries.
	require.InDelta(t, maxBytes/2/370+maxBytes/2/(370+581), known, 10)
	require.InDelta(t, maxBytes/2/(370+581), entries, 5)
}

func TestMemoryEvictsKeys(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 64<<10)
	keyed := func(i int) store.AppendOptions {
		return store.AppendOptions{Size: 10, TTL: time.Hour, Key: fmt.Sprint(i), KeyTTL: time.Hour}
	}
	const n = 2000
	for i := range n {
		mustAppend(t, m, "ch", "1", keyed(i))
	}
	require.Len(t, readAll(t, m, "ch").Entries, 10, "many keys must not push out the few entries")
	for i := n - 300; i < n; i++ {
		done, err := m.Append(t.Context(), "ch", store.Entry{}, keyed(i))
		require.NoError(t, err)
		require.True(t, done.Duplicate, "%d", i)
	}
	done, err := m.Append(t.Context(), "ch", store.Entry{}, keyed(0))
	require.NoError(t, err)
	require.False(t, done.Duplicate)
}

func TestMemoryEntryThatNeverFits(t *testing.T) {
	t.Parallel()
	m := newMemory(t, 64<<10)
	before := mustAppend(t, m, "other", "1", plenty)
	small := m.Bytes()
	_, err := m.Append(t.Context(), "ch", store.Entry{Body: make([]byte, 64<<10)}, plenty)
	require.ErrorContains(t, err, "does not fit into MemoryOptions.MaxBytes (65536)")
	require.NotErrorIs(t, err, store.ErrUnavailable)
	require.Zero(t, top(t, m, "ch"))
	require.Equal(t, before, top(t, m, "other"))

	// The largest entry that fits evicts all others, but not itself.
	largest := strings.Repeat("x", 64<<10-int(2*small)+40)
	mustAppend(t, m, "ch", largest, plenty)
	require.Len(t, readAll(t, m, "ch").Entries, 1)
	require.Empty(t, readAll(t, m, "other").Entries)
	require.Equal(t, before, top(t, m, "other"))
	mustAppend(t, m, "ch", largest, plenty)
	require.Len(t, readAll(t, m, "ch").Entries, 1)
}

func TestMemoryReportsAreNotEvicted(t *testing.T) {
	inBubble(t, 64<<10, func(t *testing.T, m *store.Memory) { // so that no replica dies on a slow machine
		var tops []store.Position
		for i := range 100 {
			tops = append(tops, mustAppend(t, m, fmt.Sprint(i), "1", plenty))
		}
		var counts []store.Count
		for i := range 1000 {
			counts = append(counts, store.Count{Channel: fmt.Sprint("channel ", i), Subscribers: 1})
		}
		report(t, m, store.Report{Replica: store.Replica{ID: "a"}, Channels: counts})
		got, err := m.Channels(t.Context(), "", "", 10_000)
		require.NoError(t, err)
		require.Len(t, got, 1000)
		require.LessOrEqual(t, m.Logs(), 1)
		_, err = m.Append(t.Context(), "ch", store.Entry{}, plenty)
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.ErrorContains(t, err, "MaxBytes")

		require.NoError(t, m.Forget(t.Context(), "a"))
		require.NotEqual(t, tops[0].Epoch, mustAppend(t, m, "0", "1", plenty).Epoch)
	})
}

func TestMemoryLooksAtOtherLogs(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, m *store.Memory) {
		const logs = 1000
		// The oldest log lives long. It must not hide the others.
		mustAppend(t, m, "oldest", "1", store.AppendOptions{Size: 1, TTL: 30 * 24 * time.Hour})
		for i := range logs {
			mustAppend(t, m, fmt.Sprint(i), strings.Repeat("x", 1000), store.AppendOptions{Size: 1, TTL: time.Minute})
		}
		full := m.Bytes()
		time.Sleep(time.Hour)
		for range logs {
			mustAppend(t, m, "ch", "1", store.AppendOptions{Size: 1, TTL: time.Minute})
		}
		require.Less(t, m.Bytes(), full/2, "the entries are gone")
		require.Equal(t, logs+2, m.Logs(), "the positions are not")
		time.Sleep(store.MetaTTL)
		for range 2 * logs {
			mustAppend(t, m, "ch", "1", store.AppendOptions{Size: 1, TTL: time.Minute})
		}
		require.Equal(t, 2, m.Logs())
	})
}
