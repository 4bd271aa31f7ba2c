package redisstore_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
	"github.com/channels-go/channels/store/storetest"
)

func TestMain(m *testing.M) {
	logging.Disable() // servers are killed here
	// The cases of storetest mostly wait.
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	// A client whose server has gone dials it once a second, and notices at the
	// next attempt that it was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var (
	open       = redisstore.NewStore
	eventually = basetest.Eventually
)

// start starts a server for a test, and a Store on it.
func start(t testing.TB, args ...string) (*redistest.Server, *redisstore.Store) {
	t.Helper()
	r := redistest.Start(t, args...)
	return r, open(t, r.Client())
}

// heartbeat is a report of a replica that changes nothing.
var heartbeat = store.Report{Replica: store.Replica{ID: "n"}}

// report makes a replica report.
func report(t testing.TB, s *redisstore.Store, r store.Report) (known bool) {
	t.Helper()
	known, err := s.Report(t.Context(), r)
	require.NoError(t, err)
	return known
}

var plenty = store.AppendOptions{Size: 1_000_000, TTL: time.Hour}

func entry(text string) store.Entry { return store.Entry{Header: text, Body: []byte(`"` + text + `"`)} }

// calls returns a call of each method.
func calls(s *redisstore.Store, channel string) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"append": func(ctx context.Context) error {
			_, err := s.Append(ctx, channel, entry("x"), plenty)
			return err
		},
		"begin":    func(ctx context.Context) error { _, err := s.Begin(ctx, channel); return err },
		"range":    func(ctx context.Context) error { _, err := s.Range(ctx, channel, store.Query{Limit: 1}); return err },
		"tops":     func(ctx context.Context) error { _, err := s.Tops(ctx, []string{channel, "b"}); return err },
		"nodes":    func(ctx context.Context) error { _, err := s.Replicas(ctx); return err },
		"report":   func(ctx context.Context) error { _, err := s.Report(ctx, heartbeat); return err },
		"channels": func(ctx context.Context) error { _, err := s.Channels(ctx, "", "", 10); return err },
		"channel":  func(ctx context.Context) error { _, err := s.Channel(ctx, channel); return err },
		"update": func(ctx context.Context) error {
			return s.UpdatePresence(ctx, "n", []store.PresenceChange{{Channel: channel, Member: store.Member{ID: "1"}}})
		},
		"members": func(ctx context.Context) error { _, _, err := s.Members(ctx, channel, 1); return err },
		"hold":    func(ctx context.Context) error { _, err := s.Hold(ctx, "n", store.Holding{}); return err },
		"forget":  func(ctx context.Context) error { return s.Forget(ctx, "n") },
	}
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
