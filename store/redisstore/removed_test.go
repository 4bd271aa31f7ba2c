//go:build !windows

package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// After XDEL has removed a message, for instance one that should never have
// been sent, the others arrive once each, in both directions, even when the log
// expires.
func TestRemovedMessages(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	for n := range 40 {
		mustAppend(t, s, "h", fmt.Sprint(n+1))
	}
	removed := []string{"12", "21", "22", "35"}
	for _, offset := range removed {
		remove(t, r, offset)
	}
	var want []uint64
	for n := uint64(11); n <= 40; n++ {
		if !slices.Contains(removed, fmt.Sprint(n)) {
			want = append(want, n)
		}
	}
	for _, newest := range []bool{false, true} {
		page, err := s.Range(t.Context(), "h", store.Query{After: 10, Limit: 100, Newest: newest})
		require.NoError(t, err)
		var got []uint64
		for _, e := range page.Entries {
			got = append(got, e.Offset)
			require.Equal(t, fmt.Sprint(e.Offset), e.Header)
		}
		require.Equal(t, want, got, "newest first: %v", newest)
	}
}

// remove removes the message with this offset from the log of "h".
func remove(t *testing.T, r *redistest.Server, offset string) {
	t.Helper()
	id, _, _ := strings.Cut(r.Do("XRANGE", "channels:log:{h}", offset, offset), "\n")
	require.Equal(t, "1", r.Do("XDEL", "channels:log:{h}", strings.TrimSpace(id)))
}

// The search for expired entries may look for the removed one.
func TestRemovedLastMessageOfALogThatExpires(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	for n := range 3 {
		mustAppend(t, s, "h", fmt.Sprint(n))
	}
	remove(t, r, "3")
	// As if the whole log were from yesterday.
	line := strings.Fields(r.Do("GET", "channels:top:{h}"))
	line[3], line[5] = "1", "1"
	r.Do("SET", "channels:top:{h}", strings.Join(line, " "), "PX", "1000000")
	page, err := s.Range(t.Context(), "h", store.Query{Limit: 100})
	require.NoError(t, err)
	require.EqualValues(t, 3, page.Top.Offset)
}
