package redisstore_test

import (
	"flag"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
	"github.com/channels-go/channels/store/storetest"
)

func TestMain(m *testing.M) {
	// The cases of storetest mostly wait.
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	// A client whose server has gone dials it once a second, and notices at the
	// next attempt that it was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func open(t testing.TB, c redis.UniversalClient) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(c, redisstore.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStoreOnOneServer(t *testing.T) {
	t.Parallel()
	c := redistest.Start(t).Client()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, c) })
}

func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 3, false).Client()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, c) })
}

func TestStoreBehindSentinel(t *testing.T) {
	t.Parallel()
	c := redistest.StartSentinel(t).Client()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, c) })
}
