package storetest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/storetest"
)

// counted is a Store of one's own: it counts what is appended to another one.
type counted struct {
	store.Store
	appended atomic.Int64
}

func (c *counted) Append(ctx context.Context, channel string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	done, err := c.Store.Append(ctx, channel, e, o)
	if err == nil && !done.Duplicate {
		c.appended.Add(1)
	}
	return done, err
}

func openCounted(t *testing.T) store.Store {
	m, err := store.NewMemory(store.MemoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &counted{Store: m}
}

// One call in the tests of a Store's package checks all that a Store promises.
func ExampleRun() {
	var t *testing.T // of func TestStore(t *testing.T)
	storetest.Run(t, openCounted)
}

// The example's Store passes. It does no I/O, so the cases that wait run in a
// bubble, where that takes no time.
func TestRun(t *testing.T) {
	for _, c := range storetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.Run(t, openCounted) })
		})
	}
}
