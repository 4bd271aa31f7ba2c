package redismesh

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A recent never holds more than its max, always knows what was set up to half
// as many entries ago, and reports whether it has forgotten anything.
func TestRecentForgetsTheOldest(t *testing.T) {
	const max = 64
	r := recent[int, int]{max: max}
	order, value := []int{}, map[int]int{} // the one set last is at the end
	for i := range 1500 {
		k := rand.IntN(max/2 + i/8)
		r.set(k, i)
		value[k] = i
		if at := slices.Index(order, k); at >= 0 {
			order = slices.Delete(order, at, at+1)
		}
		order = append(order, k)
		require.LessOrEqual(t, len(r.now)+len(r.before), max)
		missing := false
		for n := range order {
			k := order[len(order)-1-n]
			switch v, ok := r.get(k); { // require is slow, and this runs 100,000 times
			case !ok && n < max/2:
				t.Fatalf("it is forgotten, and only %d others were set since", n)
			case ok && missing:
				t.Fatal("an entry that was set later is forgotten before one that was set earlier")
			case ok && v != value[k]:
				t.Fatalf("it is %d instead of %d", v, value[k])
			case !ok:
				missing = true
			}
		}
		require.Equal(t, missing, r.forgot && missing)
	}
	require.True(t, r.forgot)

	r = recent[int, int]{max: max}
	for i := range 1000 {
		r.set(i%(max/2), i)
	}
	require.False(t, r.forgot)
}
