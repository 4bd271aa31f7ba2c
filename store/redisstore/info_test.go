//go:build !windows

package redisstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// An entry without an info takes what it took before there were infos, whichever
// entries are around it: Redis has the same fields in all of them.
func TestEntriesWithoutInfoCostNothing(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	c := r.Client()
	info := `{"client":"a-1","user":"ann"}`
	for i := range 100 {
		e := entry("x")
		if i%2 == 1 {
			e.Info = []byte(info)
		}
		_, err := s.Append(t.Context(), "c", e, plenty)
		require.NoError(t, err)
	}
	raw, err := c.Do(t.Context(), "XRANGE", "channels:log:{c}", "-", "+").Slice()
	require.NoError(t, err)
	require.Len(t, raw, 100)
	for i, one := range raw {
		fields := one.([]any)[1].([]any)
		require.Equal(t, []any{"header", "x", "body", `"x"`, "call"}, fields[:5])
		call, said, _ := strings.Cut(fields[5].(string), " ")
		require.Len(t, fields, 6)
		require.Len(t, call, 10)
		require.Equal(t, map[bool]string{true: info}[i%2 == 1], said)
	}
}

// Replicas of earlier releases write entries without an info, and read over those of
// this one. Whatever wrote an entry, header and body are what it said.
func TestEntriesOfOtherReleases(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	c := r.Client()
	_, err := s.Append(t.Context(), "c", entry("1"), plenty)
	require.NoError(t, err)
	last, err := c.XRevRangeN(t.Context(), "channels:log:{c}", "+", "-", 1).Result()
	require.NoError(t, err)
	_, now, _ := strings.Cut(last[0].ID, "-")
	for i, values := range [][]string{
		{"header", "2", "body", "2", "call", "ABCDEFGHIJ"},
		{"header", "3", "body", "3"},
		{"header", "4", "body", "4", "call", "ABCDEFGHIJ ", "later", "x"},
	} {
		require.NoError(t, c.XAdd(t.Context(), &redis.XAddArgs{Stream: "channels:log:{c}", ID: fmt.Sprint(i+2, "-", now), Values: values}).Err())
	}
	top, err := c.Get(t.Context(), "channels:top:{c}").Result()
	require.NoError(t, err)
	words := strings.Fields(top)
	words[2] = "4"
	require.NoError(t, c.Set(t.Context(), "channels:top:{c}", strings.Join(words, " "), redis.KeepTTL).Err())

	page, err := s.Range(t.Context(), "c", store.Query{Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Entries, 4)
	for i, e := range page.Entries[1:] {
		require.Equal(t, string(rune('2'+i)), e.Header)
		require.Equal(t, e.Header, string(e.Body))
		require.Nil(t, e.Info)
	}
}
