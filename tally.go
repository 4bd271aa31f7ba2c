package channels

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// A tally counts what happens now and then, by a name. The zero value is empty.
type tally struct {
	mu sync.Mutex // guards the field below
	n  map[string]int64
}

// maxTally bounds the names, since an app's own errors may have any codes. What comes
// by a further name counts as tallyRest. A name is cut to tallyName bytes of UTF-8, as a
// label of a metric has to be.
const (
	maxTally  = 64
	tallyRest = "other"
	tallyName = 64
)

func (t *tally) add(name string) {
	name = strings.ToValidUTF8(name[:min(len(name), tallyName)], "?")
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]int64)
	}
	if _, known := t.n[name]; !known && len(t.n) >= maxTally {
		name = tallyRest
	}
	t.n[name]++
}

// read returns the counts, which the caller owns. The names that it is given are among
// them, even if they were never added.
func (t *tally) read(names ...string) map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := maps.Clone(t.n)
	if n == nil {
		n = make(map[string]int64, len(names))
	}
	for _, name := range names {
		n[name] += 0
	}
	return n
}

// publishCounts are what became of the messages that came by one door.
type publishCounts struct {
	ok, duplicate atomic.Int64
	refused       tally // by the error's code
}

// note counts one message.
func (c *publishCounts) note(duplicate bool, err error) {
	switch {
	case err != nil:
		c.refused.add(codeOf(err))
	case duplicate:
		c.duplicate.Add(1)
	default:
		c.ok.Add(1)
	}
}

// The names of outcomes that are no error's code.
const (
	outcomeOK        = "ok"
	outcomeDuplicate = "duplicate"
	outcomeCancelled = "cancelled" // the publisher's context has ended
)

// codeOf is the name under which an error counts.
func codeOf(err error) string {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if !errors.As(err, new(*Error)) {
			return outcomeCancelled
		}
	}
	return visible(err, ErrInternal).Code
}
