package redisstore

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// FuzzTexts: whatever is read from Redis, nothing panics, and what this package
// has written comes back.
func FuzzTexts(f *testing.F) {
	for _, text := range []string{"e e 7 3600000 1 1 9 abc -", "e:7,f:3", "-", "3:ann{}", "-1:x", "99999999999999999999:x", "3 -7", "7-5", "18446744073709551616-1", ""} {
		f.Add(text, "x")
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		parseTop(text)
		parseEarlier(text)
		parseMillis(text)
		_ = addCount(&store.Count{Channel: other}, text)
		_, _ = unpackMember(other, text)
		for _, item := range []any{nil, text, []any{}, []any{text}, []any{text, nil}, []any{text, []any{"header", text, "body", nil}}, []any{text, []any{"header", text, "body", text, nil}}, []any{text, []any{"header", text, "body", text, "info", text}}, []any{nil, []any{1, 2, 3, 4}}} {
			_, ok := parseEntry(item)
			require.False(t, ok)
		}
		if e, ok := parseEntry([]any{text, []any{"header", other, "body", text}}); ok {
			require.Equal(t, entry{e.offset, e.time, other, text, ""}, e)
			e, ok = parseEntry([]any{text, []any{"header", other, "body", text, other}})
			require.True(t, ok)
			require.Equal(t, entry{e.offset, e.time, other, text, other}, e)
		}
		m := store.Member{ID: other, User: text}
		if other != "" {
			m.Info = json.RawMessage(other)
		}
		back, err := unpackMember(other, packMember(m))
		require.NoError(t, err)
		require.Equal(t, m, back)
	})
}
