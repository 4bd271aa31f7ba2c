package redisstore

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// newStore returns a Store that the test closes at its end.
func newStore(t testing.TB, c redis.UniversalClient) *Store {
	t.Helper()
	s, err := New(c, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// NewStore is newStore for the tests outside of the package.
var NewStore = newStore
