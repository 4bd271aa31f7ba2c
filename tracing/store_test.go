package tracing_test

import (
	"context"
	"sync/atomic"

	"github.com/channels-go/channels/store"
)

// failingStore is a Store whose appends fail if err is set.
type failingStore struct {
	*store.Memory
	err atomic.Pointer[error]
}

func (s *failingStore) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if err := s.err.Load(); err != nil {
		return store.Appended{}, *err
	}
	return s.Memory.Append(ctx, channel, e, o)
}
