package gate_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/gate"
)

func TestGate(t *testing.T) {
	var g gate.Gate
	ctx := context.Background()
	over, cancel := context.WithCancel(ctx)
	cancel()

	require.True(t, g.Enter())
	g.Leave()
	require.ErrorIs(t, g.Wait(over), context.Canceled, "an open gate is not waited for, even if nobody is inside")

	require.True(t, g.Enter())
	finish := make(chan struct{})
	require.True(t, g.Run(func() { <-finish }))
	require.False(t, g.Closed())
	g.Shut()
	g.Shut()
	require.True(t, g.Closed())
	require.False(t, g.Enter())
	require.False(t, g.Run(func() { t.Error("a shut gate ran a function") }))
	require.ErrorIs(t, g.Wait(over), context.Canceled, "two are inside")
	close(finish)
	g.Leave()
	require.NoError(t, g.Wait(ctx))
	require.NoError(t, g.Wait(ctx), "Wait may be repeated")
}

func TestGateOfNobody(t *testing.T) {
	var g gate.Gate
	g.Shut()
	require.NoError(t, g.Wait(context.Background()))
}
