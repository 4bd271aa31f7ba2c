package storetest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var keyCases = []Case{
	{"KeySeenAgain", "A second Append with a key adds nothing. It returns the first one's position and true, even if that entry is gone.", keySeenAgain},
	{"KeyReused", "An Append with a key that was used with another Digest adds nothing and fails with ErrKeyReused, even if that entry is gone.", keyReused},
	{"KeysAreApart", "Another key, the same key in another channel, and an Append without a key are no duplicates.", keysAreApart},
	{"KeyExpires", "A key is forgotten after its own KeyTTL, whatever the KeyTTL of keys before and after it.", keyExpires},
	{"KeyConcurrent", "Of many concurrent Appends with one key, exactly one adds an entry. All return its position.", keyConcurrent},
}

// keyed returns limits with an idempotency key.
func keyed(key string, ttl time.Duration) store.AppendOptions {
	o := plenty
	o.Key, o.KeyTTL = key, ttl
	return o
}

// again appends with a key that was already used.
func again(t *testing.T, s store.Store, channel string, o store.AppendOptions) (pos store.Position, duplicate bool) {
	t.Helper()
	done, err := s.Append(t.Context(), channel, store.Entry{Header: "again", Body: body(-1)}, o)
	require.NoError(t, err)
	return done.Position, done.Duplicate
}

func keySeenAgain(t *testing.T, s store.Store) {
	ch := unique("log")
	appendN(t, s, ch, 3, plenty)
	first := appendOne(t, s, ch, store.Entry{Header: "first", Body: body(4)}, keyed("k", time.Hour))
	for range 3 {
		pos, duplicate := again(t, s, ch, keyed("k", time.Hour))
		require.True(t, duplicate)
		require.Equal(t, first, pos)
	}
	require.Equal(t, first, readAll(t, s, ch).Top)
	require.Equal(t, "first", readN(t, s, ch, 4)[3].Header)

	o := plenty
	o.Size = 1
	top := appendN(t, s, ch, 2, o)
	pos, duplicate := again(t, s, ch, keyed("k", time.Hour))
	require.True(t, duplicate)
	require.Equal(t, first, pos)
	require.Equal(t, top, readAll(t, s, ch).Top)
	require.Equal(t, []uint64{top.Offset}, offsets(readAll(t, s, ch)), "a duplicate must not trim or add")
}

func keyReused(t *testing.T, s store.Store) {
	ch := unique("log")
	digests := []string{"one", "", "two words\n", "\x00\xff 1", strings.Repeat("x", 64)}
	o := plenty
	for i, digest := range digests {
		o = keyed(fmt.Sprint("key ", i), time.Hour)
		o.Digest = digest
		first := appendOne(t, s, ch, store.Entry{Header: "first", Body: body(i)}, o)
		for range 2 {
			for _, other := range append([]string{"ones"}, digests...) {
				o.Digest = other
				if other == digest {
					pos, duplicate := again(t, s, ch, o)
					require.True(t, duplicate)
					require.Equal(t, first, pos)
					continue
				}
				done, err := s.Append(t.Context(), ch, store.Entry{Header: "other", Body: body(-1)}, o)
				require.ErrorIs(t, err, store.ErrKeyReused, "%q after %q", other, digest)
				require.False(t, done.Duplicate)
				require.Zero(t, done.Position)
			}
		}
	}
	require.Len(t, readAll(t, s, ch).Entries, len(digests))
	o.Size, o.Key = 1, ""
	appendN(t, s, ch, 2, o)
	o.Key, o.Digest = "key 0", "another"
	_, err := s.Append(t.Context(), ch, store.Entry{Body: body(0)}, o)
	require.ErrorIs(t, err, store.ErrKeyReused)
}

func keysAreApart(t *testing.T, s store.Store) {
	a, b := unique("a"), unique("b")
	keys := []string{"k", "K", "k ", "k:1", "k\x00", "ключ", strings.Repeat("k", 200)}
	for i, key := range keys {
		for _, ch := range []string{a, b} {
			pos := appendOne(t, s, ch, store.Entry{Header: key, Body: body(i)}, keyed(key, time.Hour))
			require.EqualValues(t, i+1, pos.Offset)
		}
	}
	for i, key := range keys {
		pos, duplicate := again(t, s, a, keyed(key, time.Hour))
		require.True(t, duplicate)
		require.EqualValues(t, i+1, pos.Offset)
	}
	appendN(t, s, a, 2, keyed("", 0))
}

func keyExpires(t *testing.T, s store.Store) {
	ch := unique("log")
	long1 := appendOne(t, s, ch, store.Entry{Body: body(1)}, keyed("long 1", time.Hour))
	appendOne(t, s, ch, store.Entry{Body: body(2)}, keyed("short", 100*time.Millisecond))
	long2 := appendOne(t, s, ch, store.Entry{Body: body(3)}, keyed("long 2", time.Hour))
	eventually(t, "the key expires although it is used all the time", func() bool {
		pos, duplicate := again(t, s, ch, keyed("short", time.Hour))
		if duplicate {
			require.EqualValues(t, 2, pos.Offset)
			return false
		}
		require.EqualValues(t, 4, pos.Offset)
		return true
	})
	for key, want := range map[string]store.Position{
		"long 1": long1,
		"long 2": long2,
		"short":  {Epoch: long1.Epoch, Offset: 4},
	} {
		pos, duplicate := again(t, s, ch, keyed(key, time.Hour))
		require.True(t, duplicate, key)
		require.Equal(t, want, pos, key)
	}
}

func keyConcurrent(t *testing.T, s store.Store) {
	const goroutines, keys = 16, 50
	ch := unique("log")
	ctx := t.Context()
	for k := range keys {
		key := fmt.Sprint("key ", k)
		positions := make([]store.Position, goroutines)
		var added atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range goroutines {
			wg.Go(func() {
				<-start
				done, err := s.Append(ctx, ch, store.Entry{Header: key, Body: body(i)}, keyed(key, time.Hour))
				assert.NoError(t, err)
				if !done.Duplicate {
					added.Add(1)
				}
				positions[i] = done.Position
			})
		}
		close(start)
		wg.Wait()
		require.EqualValues(t, 1, added.Load(), "how many were added")
		for _, pos := range positions {
			require.Equal(t, positions[0], pos)
			require.EqualValues(t, k+1, pos.Offset)
		}
	}
	for i, e := range readN(t, s, ch, keys) {
		require.Equal(t, fmt.Sprint("key ", i), e.Header)
	}
}
