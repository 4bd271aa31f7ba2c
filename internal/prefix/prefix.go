// Package prefix finds what is wanted for a beginning of a name.
package prefix

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An Index finds the values that were added for a prefix of a name. It is made for
// many lookups and few changes: a lookup takes no lock, and costs one load if the
// index is empty, while a change copies the whole index. All its methods may be
// called concurrently. The zero value is empty and ready.
type Index[V comparable] struct {
	mu    sync.Mutex // held to change table
	table atomic.Pointer[table[V]]
}

// A table is sorted by prefix. It does not change.
type table[V comparable] []entry[V]

type entry[V comparable] struct {
	prefix string
	values []V
	parent int // the place of the longest other prefix that this one begins with, or -1
}

// Add adds a value for a prefix. It returns false if it is there already.
func (x *Index[V]) Add(prefix string, v V) (added bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.load()
	i, found := t.search(prefix)
	if !found {
		x.store(slices.Insert(slices.Clone(t), i, entry[V]{prefix: prefix, values: []V{v}}))
		return true
	}
	if slices.Contains(t[i].values, v) {
		return false
	}
	x.replace(t, i, append(slices.Clone(t[i].values), v))
	return true
}

// Remove undoes Add. It returns false if the value is not there.
func (x *Index[V]) Remove(prefix string, v V) (removed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.load()
	i, found := t.search(prefix)
	if !found {
		return false
	}
	at := slices.Index(t[i].values, v)
	switch {
	case at < 0:
		return false
	case len(t[i].values) > 1:
		x.replace(t, i, slices.Delete(slices.Clone(t[i].values), at, at+1))
	default:
		x.store(slices.Delete(slices.Clone(t), i, i+1))
	}
	return true
}

func (x *Index[V]) load() table[V] {
	if t := x.table.Load(); t != nil {
		return *t
	}
	return nil
}

// replace changes the values of a prefix that is there.
func (x *Index[V]) replace(t table[V], i int, values []V) {
	t = slices.Clone(t)
	t[i].values = values
	x.table.Store(&t)
}

// store keeps a table whose prefixes have changed.
func (x *Index[V]) store(t table[V]) {
	if len(t) == 0 {
		x.table.Store(nil)
		return
	}
	for i := range t {
		parent := i - 1
		for parent >= 0 && !strings.HasPrefix(t[i].prefix, t[parent].prefix) {
			parent = t[parent].parent
		}
		t[i].parent = parent
	}
	x.table.Store(&t)
}

// search returns where a prefix is, or where it belongs. The sort package's search
// would call a function for each step.
func (t table[V]) search(prefix string) (i int, found bool) {
	end := len(t)
	for i < end {
		mid := int(uint(i+end) / 2)
		if t[mid].prefix < prefix {
			i = mid + 1
		} else {
			end = mid
		}
	}
	return i, i < len(t) && t[i].prefix == prefix
}

// Empty reports whether there is no value at all.
func (x *Index[V]) Empty() bool { return x.table.Load() == nil }

// Find calls f with the values of each prefix of a name, the longest prefix first. f
// must not change them.
//
// What sorts between a prefix and the name begins with that prefix. So all prefixes
// of the name are among the last entry that does not sort behind it, its parent, and
// so on. BenchmarkFind has the cost.
func (x *Index[V]) Find(name string, f func(values []V)) {
	t := x.load()
	if t == nil {
		return
	}
	i, found := t.search(name)
	if !found {
		i--
	}
	for ; i >= 0; i = t[i].parent {
		if strings.HasPrefix(name, t[i].prefix) {
			f(t[i].values)
		}
	}
}

// Has reports whether there is a value for a prefix of a name.
func (x *Index[V]) Has(name string) (found bool) {
	x.Find(name, func([]V) { found = true })
	return found
}

// All returns all prefixes, sorted.
func (x *Index[V]) All() []string {
	var all []string
	for _, e := range x.load() {
		all = append(all, e.prefix)
	}
	return all
}
