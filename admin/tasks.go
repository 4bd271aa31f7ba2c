package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/gate"
)

// tasks are the goroutines and operators' requests that Close waits for, by their names:
// if it waits in vain, it says for what.
type tasks struct {
	gate gate.Gate

	mu    sync.Mutex // guards the field below
	under map[string]int
}

// enter returns false after shut. Otherwise, leave must follow.
func (t *tasks) enter(name string) bool {
	if !t.gate.Enter() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under == nil {
		t.under = map[string]int{}
	}
	t.under[name]++
	return true
}

func (t *tasks) leave(name string) {
	t.mu.Lock()
	if t.under[name]--; t.under[name] == 0 {
		delete(t.under, name)
	}
	t.mu.Unlock()
	t.gate.Leave()
}

// run calls f in a goroutine, unless it is after shut.
func (t *tasks) run(name string, f func()) bool {
	if !t.enter(name) {
		return false
	}
	go func() {
		defer t.leave(name)
		f()
	}()
	return true
}

// shut lets no more in, and waits for those that are under way.
func (t *tasks) shut(patience time.Duration) error {
	if t.gate.ShutWithin(patience) == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Errorf("admin: Close has waited %v in vain for %s", patience, strings.Join(slices.Sorted(maps.Keys(t.under)), ", "))
}
