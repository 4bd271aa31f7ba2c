package redismesh

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A recent never holds more than its max, always knows what was set up to half
// as many entries ago, and reports whether it has forgotten anything.
func TestRecentForgetsTheOldest(t *testing.T) {
	const max = 64
	r := recent[int, int]{max: max}
	order, value := []int{}, map[int]int{} // the one set last is at the end
	for i := range 5_000 {
		k := rand.IntN(max/2 + i/25)
		r.set(k, i)
		value[k] = i
		for j, other := range order {
			if other == k {
				order = append(order[:j], order[j+1:]...)
				break
			}
		}
		order = append(order, k)
		require.LessOrEqual(t, len(r.now)+len(r.before), max)
		missing := false
		for n := range order {
			k := order[len(order)-1-n]
			v, ok := r.get(k)
			if n < max/2 {
				require.True(t, ok, "%d others were set since", n)
			}
			require.False(t, ok && missing, "an entry that was set later is forgotten before one that was set earlier")
			if missing = missing || !ok; ok {
				require.Equal(t, value[k], v)
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
