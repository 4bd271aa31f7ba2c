package redismesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However many prefixes a replica wants, it tells few, which cover all of them.
func TestShorten(t *testing.T) {
	var all []string
	for i := range 3000 {
		all = append(all, fmt.Sprintf("%c%c.room%05d.", 'a'+i%26, 'a'+i/26%26, i))
	}
	all = append(all, strings.Repeat("x", maxPrefix))
	slices.Sort(all)
	require.Equal(t, all[:maxPrefixes], shorten(all[:maxPrefixes]))
	for _, n := range []int{maxPrefixes + 1, len(all)} {
		short := shorten(all[len(all)-n:])
		require.LessOrEqual(t, len(short), maxPrefixes)
		for _, p := range all[len(all)-n:] {
			require.True(t, slices.ContainsFunc(short, func(s string) bool { return strings.HasPrefix(p, s) }), p)
		}
	}
	require.Equal(t, []string{""}, shorten(append([]string{""}, all...))[:1], "all channels stay all channels")
}

// told encodes prefixes as a replica tells them.
func told(prefixes ...string) string {
	var b []byte
	for _, p := range prefixes {
		b = appendText(b, p)
	}
	return string(b)
}

// What a life wants is what it has told last; it counts no more once it is silent.
func TestWants(t *testing.T) {
	w := wants{byLife: map[uint64]*want{}}
	who := func(channel string) (ids []string) {
		w.index.Find(channel, func(all []replicaLife) {
			for _, r := range all {
				ids = append(ids, fmt.Sprint(r.id, r.life))
			}
		})
		return ids
	}
	require.NoError(t, w.take(1, "a", told("chat.", "news.")))
	require.NoError(t, w.take(2, "b", told("")))
	require.NoError(t, w.take(3, "a", told("chat.", "chat.")))
	require.Equal(t, []string{"a1", "a3", "b2"}, who("chat.x"))
	require.Equal(t, []string{"a1", "b2"}, who("news.x"))
	require.NoError(t, w.take(1, "a", told("chat.")))
	require.Equal(t, []string{"b2"}, who("news.x"))
	require.NoError(t, w.take(2, "b", ""))
	require.NoError(t, w.take(4, "c", ""))
	require.Equal(t, []string{"a1", "a3"}, who("chat.x"))
	require.Len(t, w.byLife, 2)
	w.forget()
	require.Len(t, w.byLife, 2)
	w.byLife[3].told = time.Now().Add(-wantsWait)
	w.forget()
	require.Equal(t, []string{"a1"}, who("chat.x"))

	many := make([]string, maxPrefixes+1)
	for _, bad := range []string{"\x00", "\x00\x05abc", told(strings.Repeat("x", maxPrefix+1)), told(many...)} {
		require.ErrorIs(t, w.take(1, "a", bad), errFrame)
	}
	require.Equal(t, []string{"a1"}, who("chat.x"), "what is malformed changes nothing")
}

// FuzzWants reads frames as strangers may publish them, and what replicas tell in them.
func FuzzWants(f *testing.F) {
	f.Add(appendFrame(nil, frame{frameMessages, 1, 2, 1, "a"}))
	f.Add(append(appendFrame(nil, frame{frameWants, 1, 2, 1, "a"}), told("chat.", "")...))
	f.Add(append(appendFrame(nil, frame{frameCopy, 1, 2, 1, "a"}), told("chat.a")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, rest, err := readFrame(string(b))
		if err != nil {
			return
		}
		require.Equal(t, string(b), string(appendFrame(nil, head))+rest)
		w := wants{byLife: map[uint64]*want{}}
		if w.take(head.life, head.origin, rest) == nil && len(rest) > 0 {
			require.Equal(t, rest, told(w.byLife[head.life].prefixes...))
		}
		if text, after, ok := cutText(rest); ok {
			require.Equal(t, rest, told(text)+after)
		}
	})
}
