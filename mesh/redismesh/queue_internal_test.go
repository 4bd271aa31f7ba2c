package redismesh

import (
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/stretchr/testify/require"
)

// A forgotten frame does not count as none, and the sender's memory is bounded.
func TestForgottenFrameIsUnknown(t *testing.T) {
	const max = 64
	s := &sender{link: newLink(&Mesh{life: 1, replica: "a"}, "b:"), seed: maphash.MakeSeed(), open: map[string]int{}}
	s.previous.max = max
	previous := func(channel string) (number, previous uint64) {
		s.groups = append(s.groups[:0], group{name: s.name(channel), kind: frameMessages, first: -1})
		s.encode(nil, nil, 0)
		f, _, err := readFrame(string(s.out))
		require.NoError(t, err)
		return f.number, f.previous
	}
	last, none := previous("x")
	require.Zero(t, none)
	for i := range max / 2 {
		_, none = previous(fmt.Sprint("c", i))
		require.Zero(t, none, "nothing was forgotten yet, so there was none")
	}
	_, before := previous("x")
	require.Equal(t, last, before)
	for i := range 10 * max {
		previous(fmt.Sprint("d", i))
		require.LessOrEqual(t, len(s.previous.now)+len(s.previous.before), max)
	}
	_, before = previous("x")
	require.EqualValues(t, uint64(forgotten), before)
}
