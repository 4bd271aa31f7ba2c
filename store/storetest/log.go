package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var logCases = []Case{
	{"OffsetsCountFromOne", "Append returns offsets 1, 2, 3 … within one epoch, and Range returns the entries in that order.", offsetsCountFromOne},
	{"AppendSaysWhen", "Append gives the entry's time, as Range does, and none for a duplicate.", appendSaysWhen},
	{"RangeSelects", "After and Before exclude their bounds. Limit keeps the first entries, or with Newest the last ones, in ascending order.", rangeSelects},
	{"RangeBoundsBytes", "MaxBytes keeps the first entries that fit, or with Newest the last ones. At least one always comes.", rangeBoundsBytes},
	{"AbsentLog", "A log that was never appended to gives the zero Page and the zero Position, not an error.", absentLog},
	{"Begin", "Begin begins an absent log, at the offset 0 of an epoch under which the first Append goes on. It leaves any other log as it is.", begin},
	{"ConcurrentBegin", "Concurrent Begins and Appends of an absent log agree on one epoch.", concurrentBegin},
	{"TrimsBySize", "A log keeps the last Size entries. First is the offset of the oldest one. Offsets go on.", trimsBySize},
	{"TTLLeavesPosition", "Epoch and top stay when all entries have expired, and the next Append goes on from there.", ttlLeavesPosition},
	{"TTLDropsOldestFirst", "Entries older than the last Append's TTL are not returned. Younger ones are.", ttlDropsOldestFirst},
	{"ShorterTTLHolds", "The TTL of the last Append also holds for earlier entries.", shorterTTLHolds},
	{"EpochNamesTheLog", "A log's epoch never changes while it lives, differs between channels, and fits into \"epoch:offset\" and a URL.", epochNamesTheLog},
	{"NoEarlierEpochs", "A log that lost nothing has no earlier epochs: Page.Earlier is nil, whatever was trimmed or has expired.", noEarlierEpochs},
	{"ConcurrentAppend", "Concurrent Appends get each offset once. A Page that Range returns meanwhile never has a gap.", concurrentAppend},
	{"Tops", "Tops returns a position for each name in the given order, also for absent logs, repeated names and no names.", tops},
	{"AppendRefusesNonsense", "A Size below 1, a TTL below 1 ms, or with a Key a KeyTTL below 1 ms is an error, and nothing is appended.", appendRefusesNonsense},
}

func offsetsCountFromOne(t *testing.T, s store.Store) {
	ch := unique("log")
	var epoch string
	for i := 1; i <= 50; i++ {
		pos := appendOne(t, s, ch, store.Entry{Header: fmt.Sprint(i), Body: body(i)}, plenty)
		require.EqualValues(t, i, pos.Offset)
		if i == 1 {
			epoch = pos.Epoch
		}
		require.Equal(t, epoch, pos.Epoch)
	}
	p := readAll(t, s, ch)
	require.Equal(t, store.Position{Epoch: epoch, Offset: 50}, p.Top)
	require.EqualValues(t, 1, p.First)
	require.Len(t, p.Entries, 50)
	for i, e := range p.Entries {
		require.EqualValues(t, i+1, e.Offset)
		require.Equal(t, fmt.Sprint(i+1), e.Header)
		require.JSONEq(t, string(body(i+1)), string(e.Body))
	}
}

func appendSaysWhen(t *testing.T, s store.Store) {
	ch := unique("log")
	var times []time.Time
	for i := range 10 {
		done, err := s.Append(t.Context(), ch, store.Entry{Header: "h", Body: body(i), Time: time.Unix(1, 0)}, keyed(fmt.Sprint(i), time.Hour))
		require.NoError(t, err)
		times = append(times, done.Time)
	}
	for i, e := range readAll(t, s, ch).Entries {
		require.True(t, e.Time.Equal(times[i]), "%v, but %v", e.Time, times[i])
	}
	done, err := s.Append(t.Context(), ch, store.Entry{Header: "h", Body: body(0)}, keyed("0", time.Hour))
	require.NoError(t, err)
	require.True(t, done.Duplicate)
	require.Zero(t, done.Time)
}

func begin(t *testing.T, s store.Store) {
	ch := unique("begun")
	at, err := s.Begin(t.Context(), ch)
	require.NoError(t, err)
	require.NotEmpty(t, at.Epoch)
	require.Zero(t, at.Offset)
	p := readAll(t, s, ch)
	require.Equal(t, at, p.Top)
	require.EqualValues(t, 1, p.First)
	require.Empty(t, p.Entries)
	require.Nil(t, p.Earlier)
	tops, err := s.Tops(t.Context(), []string{ch})
	require.NoError(t, err)
	require.Equal(t, []store.Position{at}, tops)
	for range 2 {
		again, err := s.Begin(t.Context(), ch)
		require.NoError(t, err)
		require.Equal(t, at, again)
		at = appendOne(t, s, ch, store.Entry{Header: "h", Body: body(1)}, plenty)
		require.Equal(t, again.Epoch, at.Epoch)
		require.Equal(t, again.Offset+1, at.Offset)
	}
	p = readAll(t, s, ch)
	require.Equal(t, at, p.Top)
	require.EqualValues(t, 1, p.First)
	require.Len(t, p.Entries, 2)
}

func concurrentBegin(t *testing.T, s store.Store) {
	for range 10 {
		ch := unique("begun")
		epochs := make([]string, 8)
		var g sync.WaitGroup
		for i := range epochs {
			g.Go(func() {
				var at store.Position
				var err error
				if i%2 == 0 {
					at, err = s.Begin(t.Context(), ch)
				} else {
					var done store.Appended
					done, err = s.Append(t.Context(), ch, store.Entry{Header: "h", Body: body(i)}, plenty)
					at = done.Position
				}
				assert.NoError(t, err)
				epochs[i] = at.Epoch
			})
		}
		g.Wait()
		p := readAll(t, s, ch)
		require.EqualValues(t, len(epochs)/2, p.Top.Offset)
		for _, e := range epochs {
			require.Equal(t, p.Top.Epoch, e)
		}
	}
}

func rangeSelects(t *testing.T, s store.Store) {
	ch := unique("log")
	o := plenty
	o.Size = 10
	top := appendN(t, s, ch, 15, o) // offsets 6 … 15 are kept
	for _, c := range []struct {
		q    store.Query
		want []uint64
	}{
		{store.Query{Limit: 100}, []uint64{6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		{store.Query{Limit: 10}, []uint64{6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		{store.Query{Limit: 3}, []uint64{6, 7, 8}},
		{store.Query{Limit: 3, Newest: true}, []uint64{13, 14, 15}},
		{store.Query{Limit: 0}, []uint64{}},
		{store.Query{Limit: 0, Newest: true}, []uint64{}},
		{store.Query{After: 3, Limit: 2}, []uint64{6, 7}},
		{store.Query{After: 5, Limit: 2}, []uint64{6, 7}},
		{store.Query{After: 6, Limit: 2}, []uint64{7, 8}},
		{store.Query{After: 6, Limit: 2, Newest: true}, []uint64{14, 15}},
		{store.Query{After: 14, Limit: 9}, []uint64{15}},
		{store.Query{After: 15, Limit: 9}, []uint64{}},
		{store.Query{After: 16, Limit: 9}, []uint64{}},
		{store.Query{After: 1 << 50, Limit: 9}, []uint64{}},
		{store.Query{Before: 1, Limit: 9}, []uint64{}},
		{store.Query{Before: 6, Limit: 9}, []uint64{}},
		{store.Query{Before: 7, Limit: 9}, []uint64{6}},
		{store.Query{Before: 10, Limit: 2}, []uint64{6, 7}},
		{store.Query{Before: 10, Limit: 2, Newest: true}, []uint64{8, 9}},
		{store.Query{Before: 15, Limit: 1, Newest: true}, []uint64{14}},
		{store.Query{Before: 16, Limit: 1, Newest: true}, []uint64{15}},
		{store.Query{Before: 1 << 50, Limit: 1, Newest: true}, []uint64{15}},
		{store.Query{After: 8, Before: 12, Limit: 9}, []uint64{9, 10, 11}},
		{store.Query{After: 8, Before: 12, Limit: 2}, []uint64{9, 10}},
		{store.Query{After: 8, Before: 12, Limit: 2, Newest: true}, []uint64{10, 11}},
		{store.Query{After: 8, Before: 9, Limit: 9}, []uint64{}},
		{store.Query{After: 12, Before: 8, Limit: 9}, []uint64{}},
		{store.Query{After: math.MaxUint64, Before: math.MaxUint64, Limit: math.MaxInt32}, []uint64{}},
		{store.Query{Before: math.MaxUint64, Limit: math.MaxInt32, Newest: true}, []uint64{6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	} {
		p := read(t, s, ch, c.q)
		assert.Equal(t, c.want, offsets(p), "%+v", c.q)
		assert.Equal(t, top, p.Top, "%+v", c.q)
		assert.EqualValues(t, 6, p.First, "%+v", c.q)
	}
}

func rangeBoundsBytes(t *testing.T, s store.Store) {
	ch := unique("log")
	for i := 1; i <= 9; i++ {
		e := store.Entry{Header: "four", Body: body(i)} // 4 bytes and those of the body
		if i == 5 {
			e.Body = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		}
		appendOne(t, s, ch, e, plenty)
	}
	one := 4 + len(body(1))
	for _, c := range []struct {
		q    store.Query
		want []uint64
	}{
		{store.Query{Limit: 100, MaxBytes: 1 << 30}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{store.Query{Limit: 100, MaxBytes: 3 * one}, []uint64{1, 2, 3}},
		{store.Query{Limit: 100, MaxBytes: 3*one - 1}, []uint64{1, 2}},
		{store.Query{Limit: 100, MaxBytes: 1}, []uint64{1}},
		{store.Query{Limit: 2, MaxBytes: 3 * one}, []uint64{1, 2}},
		{store.Query{After: 4, Limit: 100, MaxBytes: 1}, []uint64{5}},
		{store.Query{After: 3, Limit: 100, MaxBytes: 500}, []uint64{4}},
		{store.Query{Limit: 100, MaxBytes: 2 * one, Newest: true}, []uint64{8, 9}},
		{store.Query{Limit: 100, MaxBytes: 1, Newest: true}, []uint64{9}},
		{store.Query{Limit: 100, MaxBytes: 500, Newest: true}, []uint64{6, 7, 8, 9}},
		{store.Query{Before: 6, Limit: 100, MaxBytes: 1, Newest: true}, []uint64{5}},
		{store.Query{MaxBytes: 1}, []uint64{}},
	} {
		p := read(t, s, ch, c.q)
		assert.Equal(t, c.want, offsets(p), "%+v", c.q)
		assert.EqualValues(t, 9, p.Top.Offset, "%+v", c.q)
		assert.EqualValues(t, 1, p.First, "%+v", c.q)
	}
}

func absentLog(t *testing.T, s store.Store) {
	ch := unique("absent")
	for _, q := range []store.Query{{}, {Limit: 10}, {After: 7, Limit: 10}, {Before: 7, Limit: 10, Newest: true}} {
		requireAbsent(t, read(t, s, ch, q))
	}
	require.Zero(t, top(t, s, ch))
}

func trimsBySize(t *testing.T, s store.Store) {
	ch := unique("log")
	o := plenty
	for i, c := range []struct {
		size int
		want []uint64
	}{
		{1, []uint64{1}},
		{1, []uint64{2}},
		{3, []uint64{2, 3}},
		{3, []uint64{2, 3, 4}},
		{3, []uint64{3, 4, 5}},
		{5, []uint64{3, 4, 5, 6}},
		{2, []uint64{6, 7}},
	} {
		o.Size = c.size
		appendOne(t, s, ch, store.Entry{Body: body(i)}, o)
		p := readAll(t, s, ch)
		require.Equal(t, c.want, offsets(p))
		require.Equal(t, c.want[0], p.First)
		require.EqualValues(t, i+1, p.Top.Offset)
	}
}

func ttlLeavesPosition(t *testing.T, s store.Store) {
	ch := unique("log")
	o := store.AppendOptions{Size: 10, TTL: 100 * time.Millisecond}
	last := appendN(t, s, ch, 3, o)
	eventually(t, "all entries expire", func() bool { return len(readAll(t, s, ch).Entries) == 0 })
	p := readAll(t, s, ch)
	require.Equal(t, last, p.Top)
	require.EqualValues(t, 4, p.First)
	require.Equal(t, last, top(t, s, ch))

	require.Equal(t, store.Position{Epoch: last.Epoch, Offset: 4}, appendOne(t, s, ch, store.Entry{Body: body(4)}, plenty))
	p = readAll(t, s, ch)
	require.Equal(t, []uint64{4}, offsets(p))
	require.EqualValues(t, 4, p.First)
}

func ttlDropsOldestFirst(t *testing.T, s store.Store) {
	ch := unique("log")
	o := store.AppendOptions{Size: 10_000, TTL: 300 * time.Millisecond}
	// Ages are compared only by the Store's own clock.
	eventually(t, "old entries expire while the log is appended to", func() bool {
		top := appendOne(t, s, ch, store.Entry{Body: body(1)}, o)
		p := readAll(t, s, ch)
		if len(p.Entries) == 0 {
			return false // the machine paused for longer than the TTL
		}
		require.Equal(t, p.Entries[0].Offset, p.First)
		first, last := p.Entries[0], p.Entries[len(p.Entries)-1]
		require.Equal(t, top.Offset, last.Offset)
		require.Len(t, p.Entries, int(last.Offset-first.Offset)+1)
		require.LessOrEqual(t, last.Time.Sub(first.Time), o.TTL+time.Millisecond)
		return first.Offset > 3
	})
}

func shorterTTLHolds(t *testing.T, s store.Store) {
	ch := unique("log")
	appendN(t, s, ch, 3, plenty)
	top := appendOne(t, s, ch, store.Entry{Body: body(4)}, store.AppendOptions{Size: 10, TTL: 50 * time.Millisecond})
	eventually(t, "all entries expire", func() bool { return len(readAll(t, s, ch).Entries) == 0 })
	p := readAll(t, s, ch)
	require.Equal(t, top, p.Top)
	require.EqualValues(t, 5, p.First)
}

func epochNamesTheLog(t *testing.T, s store.Store) {
	a, b := unique("a"), unique("b")
	topA, topB := appendN(t, s, a, 3, plenty), appendN(t, s, b, 2, plenty)
	require.NotEqual(t, topA.Epoch, topB.Epoch)
	for _, top := range []store.Position{topA, topB} {
		require.Regexp(t, regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`), top.Epoch)
	}
	require.Equal(t, topA.Epoch, appendN(t, s, a, 1, plenty).Epoch)
	require.Equal(t, topA.Epoch, read(t, s, a, store.Query{}).Top.Epoch)
}

func noEarlierEpochs(t *testing.T, s store.Store) {
	ch := unique("log")
	require.Nil(t, readAll(t, s, ch).Earlier, "an absent log")
	o := plenty
	o.Size = 2
	for range 5 {
		appendOne(t, s, ch, store.Entry{Body: body(1)}, o)
		require.Nil(t, readAll(t, s, ch).Earlier)
	}
	o.TTL = 50 * time.Millisecond
	appendOne(t, s, ch, store.Entry{Body: body(1)}, o)
	eventually(t, "all entries expire", func() bool { return len(readAll(t, s, ch).Entries) == 0 })
	require.Nil(t, readAll(t, s, ch).Earlier, "a log without entries")
}

func concurrentAppend(t *testing.T, s store.Store) {
	const publishers, each = 16, 50
	ch := unique("log")
	ctx := t.Context()
	o := plenty
	o.Size = 200 // fewer than are appended: trimming must not make gaps

	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var seen store.Position
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := s.Range(ctx, ch, store.Query{Limit: 1000})
				if !assert.NoError(t, err) || !checkPage(t, seen, p) {
					return
				}
				seen = p.Top
			}
		})
	}
	got := make([][]store.Position, publishers)
	for i := range publishers {
		writers.Go(func() {
			for n := range each {
				done, err := s.Append(ctx, ch, store.Entry{Header: fmt.Sprint(i), Body: body(n)}, o)
				if !assert.NoError(t, err) || !assert.False(t, done.Duplicate) {
					return
				}
				got[i] = append(got[i], done.Position)
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	require.False(t, t.Failed())

	owner := make(map[uint64]string)
	for i, positions := range got {
		var last uint64
		for n, pos := range positions {
			require.Equal(t, got[0][0].Epoch, pos.Epoch)
			require.Greater(t, pos.Offset, last, "one publisher's entries are out of order")
			require.Empty(t, owner[pos.Offset], "offset %d was given twice", pos.Offset)
			last = pos.Offset
			owner[pos.Offset] = fmt.Sprint(i, string(body(n)))
		}
	}
	for off := uint64(1); off <= publishers*each; off++ {
		if owner[off] == "" {
			require.Contains(t, owner, off)
		}
	}
	p := readAll(t, s, ch)
	require.Len(t, p.Entries, o.Size)
	for _, e := range p.Entries {
		require.Equal(t, owner[e.Offset], e.Header+string(e.Body))
	}
}

// checkPage checks a page that was read to its end while other goroutines
// appended.
func checkPage(t *testing.T, before store.Position, p store.Page) bool {
	if p.Top == (store.Position{}) {
		return assert.Zero(t, before) && assert.Empty(t, p.Entries)
	}
	ok := assert.GreaterOrEqual(t, p.Top.Offset, before.Offset)
	if before.Epoch != "" {
		ok = ok && assert.Equal(t, before.Epoch, p.Top.Epoch)
	}
	ok = ok && assert.NotEmpty(t, p.Entries)
	for i, e := range p.Entries {
		if e.Offset != p.First+uint64(i) { // an assertion for each entry of each page would take seconds
			ok = ok && assert.Equal(t, p.First+uint64(i), e.Offset)
		}
	}
	return ok && assert.Equal(t, p.Top.Offset, p.First+uint64(len(p.Entries))-1)
}

func tops(t *testing.T, s store.Store) {
	ctx := t.Context()
	base := unique("tops")
	var names []string
	var want []store.Position
	for i := range 300 {
		name := fmt.Sprint(base, i)
		names = append(names, name)
		if i%3 == 0 {
			want = append(want, store.Position{})
			continue
		}
		want = append(want, appendN(t, s, name, i%4+1, plenty))
	}
	names = append(names, names[1], names[0], names[1])
	want = append(want, want[1], want[0], want[1])

	got, err := s.Tops(ctx, names)
	require.NoError(t, err)
	require.Equal(t, want, got)
	for _, none := range [][]string{nil, {}} {
		got, err = s.Tops(context.WithoutCancel(ctx), none)
		require.NoError(t, err)
		require.Empty(t, got)
	}
}

func appendRefusesNonsense(t *testing.T, s store.Store) {
	ch := unique("log")
	for _, o := range []store.AppendOptions{
		{},
		{Size: 0, TTL: time.Second},
		{Size: -1, TTL: time.Second},
		{Size: 1},
		{Size: 1, TTL: -time.Second},
		{Size: 1, TTL: time.Millisecond - 1},
		{Size: 1, TTL: time.Second, Key: "k"},
		{Size: 1, TTL: time.Second, Key: "k", KeyTTL: -time.Second},
	} {
		_, err := s.Append(t.Context(), ch, store.Entry{Body: body(1)}, o)
		require.Error(t, err, "%+v", o)
		requireAbsent(t, readAll(t, s, ch))
	}
	appendOne(t, s, ch, store.Entry{Body: body(1)}, store.AppendOptions{Size: 1, TTL: time.Millisecond})
}
