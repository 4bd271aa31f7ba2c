package replica_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/replica"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "Replica-7_b.example", strings.Repeat("x", 64), replica.NewID()} {
		require.NoError(t, replica.CheckID(id), id)
	}
	for _, id := range []string{"", "a b", "a\n", "안", "a/b", strings.Repeat("x", 65)} {
		require.ErrorContains(t, replica.CheckID(id), "it must be 1 to 64 of A-Z", id)
	}
	require.NotEqual(t, replica.NewID(), replica.NewID())
}
