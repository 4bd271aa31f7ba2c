package hubtest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// NewHub starts a hub without a server. It ends with the test. Without a Logger, it
// logs nothing.
func NewHub(t testing.TB, o channels.Options) *channels.Hub {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	hub, err := channels.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return hub
}

// RepeatedInTime returns an error if a publish that was first tried at first, and
// is acknowledged only now, may have been repeated after the hub forgot its key. If
// it is then stored twice, that is not the hub's fault.
func RepeatedInTime(first time.Time) error {
	const keyTTL = 5 * time.Minute
	if took := time.Since(first); took > keyTTL {
		return fmt.Errorf("acknowledged %v after its first try, but a key is remembered for %v only: the message may be stored twice, since this machine is too busy for the test", took, keyTTL)
	}
	return nil
}

// NewMemory opens a Store in memory. It ends with the test.
func NewMemory(t testing.TB) *store.Memory {
	t.Helper()
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close()) })
	return m
}
