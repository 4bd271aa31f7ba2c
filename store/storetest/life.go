package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

var lifeCases = []Case{
	{"CancelledContext", "With a cancelled context, every method does nothing and fails with the context's error.", cancelledContext},
	{"UseAfterClose", "After Close, every method returns ErrClosed. A second Close returns nil.", useAfterClose},
	{"CloseDuringCalls", "Calls during Close either succeed or return ErrClosed. None hangs.", closeDuringCalls},
}

// calls returns one call of each method, with names that begin with base.
func calls(s store.Store, base string) map[string]func(ctx context.Context) error {
	all := map[string]func(ctx context.Context) error{
		"Append": func(ctx context.Context) error {
			_, err := s.Append(ctx, base+"log", store.Entry{Header: "h", Body: body(1)}, plenty)
			return err
		},
		"Begin": func(ctx context.Context) error { return errorOf(s.Begin(ctx, base+"begun")) },
		"Range": func(ctx context.Context) error {
			return errorOf(s.Range(ctx, base+"log", store.Query{Limit: 10}))
		},
		"Tops": func(ctx context.Context) error {
			return errorOf(s.Tops(ctx, []string{base + "log", base + "absent"}))
		},
		"Report": func(ctx context.Context) error {
			counts := []store.Count{{Channel: base + "ch", Subscribers: 1}}
			return errorOf(s.Report(ctx, store.Report{Replica: store.Replica{ID: base + "new"}, Channels: counts}))
		},
		"Forget":   func(ctx context.Context) error { return s.Forget(ctx, base+"node") },
		"Replicas": func(ctx context.Context) error { return errorOf(s.Replicas(ctx)) },
		"Channels": func(ctx context.Context) error { return errorOf(s.Channels(ctx, base, "", 10)) },
		"Channel":  func(ctx context.Context) error { return errorOf(s.Channel(ctx, base+"ch")) },
		"UpdatePresence": func(ctx context.Context) error {
			return s.UpdatePresence(ctx, base+"node", []store.PresenceChange{join(base+"ch", "id")})
		},
		"Members": func(ctx context.Context) error {
			_, _, err := s.Members(ctx, base+"ch", 10)
			return err
		},
	}
	if h, ok := s.(store.Holder); ok {
		all["Hold"] = func(ctx context.Context) error {
			return errorOf(h.Hold(ctx, base+"node", store.Holding{Changes: []store.HoldChange{{Name: base + "name"}}, Full: true}))
		}
	}
	return all
}

// errorOf drops the answer of a call.
func errorOf[T any](_ T, err error) error { return err }

func cancelledContext(t *testing.T, s store.Store) {
	base := unique("cancelled")
	report(t, s, base+"node", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(s, base) {
		require.ErrorIs(t, call(ctx), context.Canceled, name)
	}
	requireAbsent(t, readAll(t, s, base+"log"))
	require.Equal(t, []string{base + "node"}, replicaIDs(t, s, base))
	require.Empty(t, channels(t, s, base, "", 10))
	_, total := members(t, s, base+"ch", 10)
	require.Zero(t, total)
}

func useAfterClose(t *testing.T, s store.Store) {
	base := unique("closed")
	appendN(t, s, base+"log", 3, plenty)
	report(t, s, base+"node", true, store.Count{Channel: base + "ch", Subscribers: 1})
	require.NoError(t, s.Close())
	for name, call := range calls(s, base) {
		require.ErrorIs(t, call(t.Context()), store.ErrClosed, name)
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}

func closeDuringCalls(t *testing.T, s store.Store) {
	base := unique("closing")
	ctx := t.Context()
	report(t, s, base+"node", true)
	started := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	for name, call := range calls(s, base) {
		for range 3 {
			wg.Go(func() {
				for n := 0; ; n++ {
					err := call(ctx)
					if n == 5 {
						started <- struct{}{}
					}
					if errors.Is(err, store.ErrClosed) {
						if n < 5 {
							started <- struct{}{}
						}
						return
					}
					if !assert.NoError(t, err, name) {
						started <- struct{}{}
						return
					}
				}
			})
		}
	}
	for range 3 * len(calls(s, base)) {
		<-started
	}
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() { assert.NoError(t, s.Close()) })
	}
	closers.Wait()
	for name, call := range calls(s, base) {
		require.ErrorIs(t, call(ctx), store.ErrClosed, name)
	}
	wg.Wait()
}
