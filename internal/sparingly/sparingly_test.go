package sparingly_test

import (
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
