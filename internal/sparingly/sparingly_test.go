package sparingly_test

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/sparingly"
)

// TestTurn: true the first time, and then once in a while.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turn sparingly.Turn
		for range 3 {
			require.True(t, turn.Now(time.Minute))
			time.Sleep(time.Minute - time.Nanosecond)
			require.False(t, turn.Now(time.Minute))
			time.Sleep(time.Nanosecond)
		}
	})
}

// TestReset: what is well again is told anew.
func TestReset(t *testing.T) {
	var turn sparingly.Turn
	require.False(t, turn.Reset())
	require.True(t, turn.Now(time.Minute))
	require.False(t, turn.Now(time.Minute))
	require.True(t, turn.Reset())
	require.True(t, turn.Now(time.Minute))
}

// TestTurns: each thing has its own turn, and not too many of them.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns sparingly.Turns
		require.True(t, turns.Now("first", time.Minute))
		time.Sleep(time.Second)
		for i := range 15 {
			require.True(t, turns.Now(strconv.Itoa(i), time.Minute))
			require.False(t, turns.Now(strconv.Itoa(i), time.Minute))
		}
		require.False(t, turns.Now("one more", time.Minute))
		time.Sleep(time.Minute - time.Second - time.Nanosecond)
		require.False(t, turns.Now("first", time.Minute))
		time.Sleep(time.Nanosecond)
		require.True(t, turns.Now("one more", time.Minute), "in the first one's place")
		require.False(t, turns.Now("first", time.Minute))
		time.Sleep(time.Second)
		require.True(t, turns.Now("first", time.Minute))
	})
}
