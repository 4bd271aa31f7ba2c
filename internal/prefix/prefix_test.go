package prefix_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/prefix"
)

func find(x *prefix.Index[int], name string) (all []int) {
	x.Find(name, func(values []int) { all = append(all, values...) })
	return all
}

func TestIndex(t *testing.T) {
	var x prefix.Index[int]
	require.True(t, x.Empty())
	require.False(t, x.Has(""))
	require.True(t, x.Add("chat.", 1))
	require.True(t, x.Add("chat.", 2))
	require.False(t, x.Add("chat.", 2), "it is there already")
	require.True(t, x.Add("chat.room", 3))
	require.True(t, x.Add("", 4))
	require.False(t, x.Empty())
	require.Equal(t, []int{3, 1, 2, 4}, find(&x, "chat.room1"))
	require.Equal(t, []int{1, 2, 4}, find(&x, "chat.x"), "it sorts behind chat.room, which is no prefix of it")
	require.Equal(t, []int{4}, find(&x, "chat"))
	require.Equal(t, []int{4}, find(&x, ""))
	require.Equal(t, []string{"", "chat.", "chat.room"}, x.All())
	require.True(t, x.Remove("chat.", 1))
	require.False(t, x.Remove("chat.", 1), "it is no longer there")
	require.False(t, x.Remove("cha", 1))
	require.True(t, x.Remove("chat.", 2))
	require.True(t, x.Remove("", 4))
	require.Equal(t, []int{3}, find(&x, "chat.room1"))
	require.Empty(t, find(&x, "chat.x"))
	require.True(t, x.Remove("chat.room", 3))
	require.True(t, x.Empty())
	require.False(t, x.Remove("", 4))
}

// The index finds the same as a look at every prefix, after any changes.
func TestIndexFindsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	text := func() string {
		b := make([]byte, r.IntN(6))
		for i := range b {
			b[i] = "ab\xff"[r.IntN(3)]
		}
		return string(b)
	}
	type pair struct {
		prefix string
		value  int
	}
	var x prefix.Index[int]
	var all []pair
	found := 0
	for range 5000 {
		if len(all) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(all))
			p := all[i]
			all = slices.Delete(all, i, i+1)
			require.True(t, x.Remove(p.prefix, p.value))
			require.False(t, x.Remove(p.prefix, p.value))
		} else if p := (pair{text(), r.IntN(5)}); x.Add(p.prefix, p.value) {
			require.NotContains(t, all, p)
			all = append(all, p)
		}
		name := text()
		var want []int
		for _, p := range all {
			if strings.HasPrefix(name, p.prefix) {
				want = append(want, p.value)
			}
		}
		require.ElementsMatch(t, want, find(&x, name))
		require.Equal(t, len(want) > 0, x.Has(name))
		found += len(want)
	}
	require.Greater(t, found, 1000)
}

// A lookup during changes finds what is there all the time, once.
func TestIndexIsConcurrent(t *testing.T) {
	var x prefix.Index[int]
	x.Add("a", 1)
	var changing sync.WaitGroup
	for i := range 4 {
		changing.Go(func() {
			for n := range 500 {
				p := fmt.Sprint("a", i, n%7)
				x.Add(p, 2)
				x.Remove(p, 2)
			}
		})
	}
	for range 2000 {
		n := 0
		for _, v := range find(&x, "a123") {
			if v == 1 {
				n++
			}
		}
		require.Equal(t, 1, n)
	}
	changing.Wait()
	require.Equal(t, []string{"a"}, x.All())
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{0, 1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var x prefix.Index[int]
			for i := range n {
				x.Add(fmt.Sprintf("chat.room%d.", i), i)
			}
			for b.Loop() {
				x.Has("chat.lobby")
			}
		})
	}
}
