package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
)

// These cases are for a Store that is a [store.Holder]. One that is not passes them.
var holdCases = []Case{
	{"HoldInOrder", "The replica that has held a name longest is its owner. Taking twice, and releasing what is not held, changes nothing.", holdInOrder},
	{"HoldTells", "Who becomes the owner or the only holder without a change of its own hears of it once.", holdTells},
	{"HoldFull", "With Full, a replica gets what it does not know of, with its data, and nothing is lost.", holdFull},
	{"HoldMany", "One call may have thousands of changes.", holdMany},
	{"HoldConcurrent", "Of replicas that take and release one name at the same time, each first one is followed by one last one.", holdConcurrent},
	{"HoldInherited", "What a dead or forgotten replica held alone passes to one other, once, with its data. From other names it is taken out.", holdInherited},
}

// heirs are the replicas that have inherited a name, of all cases: on one server, a
// replica of another case may be the one that inherits.
var heirs struct {
	sync.Mutex
	byName map[string][]string
	data   map[string]string
}

// holding is a replica that holds names.
type holding struct {
	t    *testing.T
	s    store.Holder
	id   string
	own  string            // a name that it releases itself
	news []store.HoldState // of its last call, but for what other cases' replicas left
}

// holders returns replicas of the case, or none if the Store is no Holder.
func holders(t *testing.T, s store.Store, n int) []*holding {
	h, ok := s.(store.Holder)
	if !ok {
		return nil
	}
	rs := make([]*holding, n)
	for i := range rs {
		rs[i] = &holding{t: t, s: h, id: unique(fmt.Sprint("holder", i))}
	}
	return rs
}

// hold makes a call, and notes what is inherited. It is released at once, so that
// nobody inherits it again.
func (r *holding) hold(full bool, changes ...store.HoldChange) store.Held {
	r.t.Helper()
	held, err := r.s.Hold(r.t.Context(), r.id, store.Holding{Changes: changes, Full: full, Inherits: true})
	require.NoError(r.t, err)
	require.Len(r.t, held.Changes, len(changes))
	r.news = nil
	for ends := r.hear(held); len(ends) > 0; {
		more, err := r.s.Hold(r.t.Context(), r.id, store.Holding{Changes: ends})
		require.NoError(r.t, err)
		ends = r.hear(more)
	}
	return held
}

// hear notes the news of a call, and returns the changes that release what is inherited.
func (r *holding) hear(held store.Held) (ends []store.HoldChange) {
	heirs.Lock()
	defer heirs.Unlock()
	if heirs.byName == nil {
		heirs.byName, heirs.data = map[string][]string{}, map[string]string{}
	}
	for _, n := range held.News {
		if !n.Inherited {
			r.news = append(r.news, n)
			continue
		}
		heirs.byName[n.Name] = append(heirs.byName[n.Name], r.id)
		heirs.data[n.Name] = string(n.Data)
		if n.Name != r.own {
			ends = append(ends, releases(n.Name))
		}
	}
	return ends
}

// one makes one change, and returns what became of it.
func (r *holding) one(c store.HoldChange) store.HoldState {
	r.t.Helper()
	s := r.hold(false, c).Changes[0]
	require.Equal(r.t, c.Name, s.Name)
	return s
}

func takes(name string) store.HoldChange { return store.HoldChange{Name: name} }

func releases(name string) store.HoldChange { return store.HoldChange{Name: name, Released: true} }

// heirsOf are who has inherited a name.
func heirsOf(name string) []string {
	heirs.Lock()
	defer heirs.Unlock()
	return append([]string(nil), heirs.byName[name]...)
}

func holdInOrder(t *testing.T, s store.Store) {
	rs := holders(t, s, 3)
	if rs == nil {
		return
	}
	a, b, c := rs[0], rs[1], rs[2]
	x, y := unique("x"), unique("y \x00 é")
	require.Equal(t, store.HoldState{Name: x, Owner: a.id, Holders: 1, Changed: true}, a.one(takes(x)))
	require.Equal(t, store.HoldState{Name: x, Owner: a.id, Holders: 1}, a.one(takes(x)))
	require.Equal(t, store.HoldState{Name: x, Owner: a.id, Holders: 2, Changed: true}, b.one(takes(x)))
	require.Equal(t, store.HoldState{Name: x, Owner: a.id, Holders: 2}, c.one(releases(x)))
	require.Equal(t, store.HoldState{Name: y}, c.one(releases(y)), "nobody holds it")
	held := c.hold(false, takes(y), takes(x), releases(y), releases(y))
	require.Equal(t, []store.HoldState{
		{Name: y, Owner: c.id, Holders: 1, Changed: true}, {Name: x, Owner: a.id, Holders: 3, Changed: true},
		{Name: y, Changed: true}, {Name: y},
	}, held.Changes, "in the given order")
	require.Equal(t, store.HoldState{Name: x, Owner: b.id, Holders: 2, Changed: true}, a.one(releases(x)))
	require.Equal(t, store.HoldState{Name: x, Owner: b.id, Holders: 3, Changed: true}, a.one(takes(x)), "who comes back is the last")
	for _, r := range rs {
		r.one(releases(x))
	}
	require.Equal(t, store.HoldState{Name: x}, a.one(releases(x)))
}

func holdTells(t *testing.T, s store.Store) {
	rs := holders(t, s, 3)
	if rs == nil {
		return
	}
	a, b, c := rs[0], rs[1], rs[2]
	x := unique("x")
	for _, r := range rs {
		r.one(takes(x))
		require.Empty(t, r.news)
	}
	b.one(releases(x))
	for _, r := range rs {
		r.hold(false)
		require.Empty(t, r.news, "a is the owner as before, and not the only holder")
	}
	b.one(takes(x))
	a.one(releases(x))
	c.hold(false)
	require.Equal(t, []store.HoldState{{Name: x, Owner: c.id, Holders: 2}}, c.news, "it is the owner")
	c.hold(false)
	require.Empty(t, c.news, "it was told")
	b.hold(false)
	require.Empty(t, b.news)
	b.one(releases(x))
	c.hold(false)
	require.Equal(t, []store.HoldState{{Name: x, Owner: c.id, Holders: 1}}, c.news, "it is the only one")
	a.one(takes(x))
	c.one(releases(x))
	a.one(releases(x))
	require.Empty(t, a.news, "of what it does not hold any more")
}

func holdFull(t *testing.T, s store.Store) {
	rs := holders(t, s, 2)
	if rs == nil {
		return
	}
	a, b := rs[0], rs[1]
	x, y, z := unique("x"), unique("y"), unique("z")
	a.own = y
	a.hold(false, takes(x), store.HoldChange{Name: y, Data: []byte("of y")})
	a.hold(false, takes(y)) // which keeps the data
	b.hold(false, takes(y))
	held := a.hold(true, takes(x), takes(z))
	require.Equal(t, []store.HoldState{{Name: x, Owner: a.id, Holders: 1}, {Name: z, Owner: a.id, Holders: 1, Changed: true}}, held.Changes)
	var unknown []store.HoldState
	for _, n := range held.News {
		if n.Name == y {
			unknown = append(unknown, n)
		}
	}
	require.Equal(t, []store.HoldState{{Name: y, Owner: a.id, Holders: 2, Inherited: true, Data: []byte("of y")}}, unknown)
	require.Equal(t, store.HoldState{Name: y, Owner: b.id, Holders: 1, Changed: true}, a.one(releases(y)))
}

func holdMany(t *testing.T, s store.Store) {
	rs := holders(t, s, 2)
	if rs == nil {
		return
	}
	a, b := rs[0], rs[1]
	const n = 2500
	base := unique("many")
	changes := make([]store.HoldChange, n)
	for i := range changes {
		changes[i] = takes(fmt.Sprint(base, i))
	}
	for i, c := range a.hold(false, changes...).Changes {
		require.Equal(t, store.HoldState{Name: changes[i].Name, Owner: a.id, Holders: 1, Changed: true}, c)
	}
	b.hold(true, changes...)
	require.GreaterOrEqual(t, b.hold(true, changes...).Total, n)
	for i := range changes {
		changes[i].Released = true
	}
	a.hold(false, changes...)
	told := map[string]bool{}
	eventually(t, "b has heard of all that it owns", func() bool {
		b.hold(false)
		for _, c := range b.news {
			require.Equal(t, store.HoldState{Name: c.Name, Owner: b.id, Holders: 1}, c)
			told[c.Name] = true
		}
		return len(told) == n
	})
	b.hold(false, changes...)
}

func holdConcurrent(t *testing.T, s store.Store) {
	rs := holders(t, s, 5)
	if rs == nil {
		return
	}
	x := unique("x")
	var mu sync.Mutex
	first, last := 0, 0
	var wg sync.WaitGroup
	for _, r := range rs {
		wg.Go(func() {
			for range 30 {
				for _, c := range []store.HoldChange{takes(x), releases(x)} {
					held, err := r.s.Hold(t.Context(), r.id, store.Holding{Changes: []store.HoldChange{c}})
					if !assert.NoError(t, err) || !assert.Len(t, held.Changes, 1) {
						return
					}
					assert.True(t, held.Changes[0].Changed)
					mu.Lock()
					switch {
					case c.Released && held.Changes[0].Holders == 0:
						last++
					case !c.Released && held.Changes[0].Holders == 1:
						first++
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, first)
	require.Equal(t, first, last)
}

func holdInherited(t *testing.T, s store.Store) {
	rs := holders(t, s, 5)
	if rs == nil {
		return
	}
	forgotten, dead, back, b, c := rs[0], rs[1], rs[2], rs[3], rs[4]
	name := func(what string) string { return unique(what) }
	left, leftShared, died, diedShared, kept := name("left"), name("left shared"), name("died"), name("died shared"), name("kept")
	of := func(name string) store.HoldChange { return store.HoldChange{Name: name, Data: []byte("of " + name)} }
	dead.hold(false, of(died), takes(diedShared))
	back.hold(false, of(kept))
	silent := time.Now()
	forgotten.hold(false, of(left), takes(leftShared))
	b.hold(false, takes(leftShared), takes(diedShared))
	b.hold(false)

	require.NoError(t, s.Forget(t.Context(), forgotten.id))
	require.NoError(t, s.Forget(t.Context(), unique("never")))
	told := map[string]bool{}
	both := func() {
		for _, r := range []*holding{b, c} {
			r.hold(false)
			for _, n := range r.news {
				require.Equal(t, b.id, r.id, "only b is concerned")
				require.Equal(t, store.HoldState{Name: n.Name, Owner: b.id, Holders: 1}, n)
				told[n.Name] = true
			}
		}
	}
	for range 3 {
		held, err := c.s.Hold(t.Context(), c.id, store.Holding{})
		require.NoError(t, err)
		for _, n := range held.News {
			require.NotEqual(t, left, n.Name, "it did not ask for it")
		}
	}
	eventually(t, "what the forgotten one held is inherited", func() bool {
		both()
		return len(heirsOf(left)) > 0 && told[leftShared]
	})
	for len(heirsOf(died)) == 0 || !told[diedShared] {
		require.Less(t, time.Since(silent), store.DeadAfter+30*time.Second)
		both()
		if time.Since(silent) < store.DeadAfter-time.Second {
			require.Empty(t, heirsOf(died), "it is not dead yet")
			back.hold(false) // a call without a change is a sign of life
		}
		sleep(t.Context(), 200*time.Millisecond)
	}
	for range 3 {
		both()
	}
	for _, name := range []string{left, died} {
		require.Len(t, heirsOf(name), 1, "one replica inherits it, once")
		heirs.Lock()
		require.Equal(t, "of "+name, heirs.data[name])
		heirs.Unlock()
	}
	// A replica that was only away finds out by the number of what it holds.
	require.Zero(t, dead.hold(false).Total)
	require.Equal(t, store.HoldState{Name: diedShared, Owner: b.id, Holders: 2, Changed: true}, dead.one(takes(diedShared)))
}
