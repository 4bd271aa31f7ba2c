package store

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxBytes = 256 << 20
	minMaxBytes     = 4 << 10
)

// MemoryOptions configures a [Memory]. The zero value is ready to use.
type MemoryOptions struct {
	// MaxBytes bounds what the Memory holds, in bytes: entries, idempotency
	// keys, the epochs and last offsets of logs, and what replicas report.
	// Memory compares it with an estimate that includes Go's overhead.
	//
	// Beyond MaxBytes, the entries and idempotency keys of the least recently
	// appended logs go first. Epochs and last offsets stay as long as they
	// take no more than half of MaxBytes and something else is left to drop.
	// What replicas report counts, but is never dropped: if it leaves no room,
	// Append fails.
	//
	// Default: 256 MiB. At least 4096.
	MaxBytes int64
}

// Memory is a [Store] in this process. It suffices for one replica, and for
// tests. All methods may be called concurrently.
//
// It has no goroutine of its own. What has expired leaves the answers at once,
// and is freed when it is next looked at. Each Append looks at a few other
// logs.
//
// An Append that can never fit into MaxBytes fails. One that does not fit
// because of what replicas reported fails with [ErrUnavailable].
type Memory struct {
	maxBytes int64
	start    time.Time // zero of the monotonic clock; see now
	closed   atomic.Bool

	bytes  atomic.Int64 // estimate of everything held
	pinned atomic.Int64 // the part of bytes that replicas reported

	evicting sync.Mutex // held by the one goroutine that evicts

	// Lock order: memLog.mu before mu. Neither is held with reg.mu.
	mu        sync.Mutex // guards the fields below, and the place of each log in the lists
	byName    map[string]*memLog
	live      *list.List    // logs that may hold entries or keys; the last appended is in front
	bare      *list.List    // logs known to hold neither; the last appended or asked for is in front
	bareBytes int64         // what the logs in bare take
	cursor    *list.Element // the log in live to check next for expired entries; nil: the last one

	reg registry
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory. It fails if an option is out of range.
func NewMemory(o MemoryOptions) (*Memory, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxBytes < minMaxBytes {
		return nil, fmt.Errorf("store: MemoryOptions.MaxBytes is %d; it must be 0 (for %d) or at least %d", o.MaxBytes, int64(defaultMaxBytes), minMaxBytes)
	}
	return &Memory{
		maxBytes: o.MaxBytes,
		start:    time.Now(),
		byName:   make(map[string]*memLog),
		live:     list.New(),
		bare:     list.New(),
		reg:      newRegistry(),
	}, nil
}

// Close implements [Store]. It frees everything that was held.
func (m *Memory) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	// A goroutine that takes one of these locks from here on sees closed.
	m.mu.Lock()
	m.byName, m.live, m.bare, m.cursor = nil, nil, nil, nil
	m.mu.Unlock()
	m.reg.mu.Lock()
	m.reg.replicas, m.reg.sums, m.reg.rooms, m.reg.holds = nil, nil, nil, holdings{}
	m.reg.mu.Unlock()
	return nil
}

// enter begins every method.
func (m *Memory) enter(ctx context.Context) error {
	if m.closed.Load() {
		return ErrClosed
	}
	return ctx.Err()
}

// now is the time since start. Deadlines are kept in it and not in wall time,
// so that setting the machine's clock neither expires nor revives anything.
func (m *Memory) now() time.Duration { return time.Since(m.start) }

// saturatingAdd is t+d, without overflow if d means "for ever".
func saturatingAdd(t, d time.Duration) time.Duration {
	if s := t + d; s >= t {
		return s
	}
	return 1<<63 - 1
}
