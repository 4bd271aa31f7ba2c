package redismesh

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/prefix"
	"github.com/channels-go/channels/mesh"
)

// Redis cannot send a channel's packets to those who want a prefix of its name: it
// has no PSUBSCRIBE for what SPUBLISH sends, and where it has one, each PUBLISH would
// be compared with each pattern, and users would need other rights. So replicas tell
// each other which prefixes they want, and a publisher sends a copy of a frame to each
// replica that wants a prefix of the channel. The copy has the number of its frame
// and follows it at once. So a replica that gets both drops the second, as it drops
// what a resent pipeline repeats.

// prefixes are those that this replica wants. The zero value is ready.
type prefixes struct {
	index prefix.Index[struct{}]
	told  atomic.Pointer[[]string] // what others are told: see shorten

	mu sync.Mutex // held while index and told change
}

const (
	maxPrefix   = 512 // bytes
	maxPrefixes = 256 // that others are told
	// A replica tells its prefixes at least once in toldPeriod seconds, and is
	// sent no more copies once it has told none for wantsWait.
	toldPeriod = 3
	wantsWait  = 15 * time.Second
)

// change adds or removes a prefix, and reports whether the others must be told.
func (p *prefixes) change(text string, want bool) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := p.index.Remove
	if want {
		to = p.index.Add
	}
	if !to(text, struct{}{}) {
		return false
	}
	told := shorten(p.index.All())
	before := p.told.Swap(&told)
	return before == nil || !slices.Equal(*before, told)
}

// tell returns what the others are told.
func (p *prefixes) tell() []string {
	if told := p.told.Load(); told != nil {
		return *told
	}
	return nil
}

// shorten returns at most maxPrefixes prefixes that cover all. A replica that is told
// shorter ones gets more than it wants, and drops that.
func shorten(all []string) []string {
	for length := maxPrefix / 2; len(all) > maxPrefixes; length /= 2 {
		short := make([]string, 0, len(all))
		for _, p := range all {
			short = append(short, p[:min(len(p), length)])
		}
		all = slices.Compact(short) // they are still sorted
	}
	return all
}

// SubscribePrefix implements [mesh.Mesh]. It fails if the prefix has more than 512
// bytes.
func (m *Mesh) SubscribePrefix(prefix string) error { return m.wantPrefix(prefix, true) }

// UnsubscribePrefix implements [mesh.Mesh]. It fails as SubscribePrefix does.
func (m *Mesh) UnsubscribePrefix(prefix string) error { return m.wantPrefix(prefix, false) }

func (m *Mesh) wantPrefix(prefix string, want bool) error {
	switch {
	case m.closing.Load():
		return mesh.ErrClosed
	case len(prefix) > maxPrefix:
		return fmt.Errorf("redismesh: the prefix %.100q has %d bytes; it must have at most %d", prefix, len(prefix), maxPrefix)
	}
	if m.prefixes.change(strings.Clone(prefix), want) {
		for _, l := range m.links {
			l.tellWants()
		}
	}
	return nil
}

// tellWants has the sender tell which prefixes this replica wants.
func (l *link) tellWants() { l.queue.tell(func() { l.queue.wants = true }) }

// tellWantsAgain does so for those who may not know yet, if there are any prefixes.
func (l *link) tellWantsAgain() {
	if len(l.mesh.prefixes.tell()) > 0 {
		l.tellWants()
	}
}

// wants are the prefixes that other replicas want, as far as they have told this
// link.
type wants struct {
	index  prefix.Index[replicaLife]
	byLife map[uint64]*want // the reader's own
}

// replicaLife is one life of a replica: a new one may come before the old one is
// known to be over.
type replicaLife struct {
	life uint64
	id   string
}

// want is what one life has told.
type want struct {
	from     replicaLife
	prefixes []string
	told     time.Time
}

// take takes what a replica tells.
func (w *wants) take(life uint64, id, told string) error {
	var all []string
	for told != "" {
		text, rest, ok := cutText(told)
		if !ok || len(text) > maxPrefix || len(all) == maxPrefixes {
			return errFrame
		}
		all, told = append(all, text), rest
	}
	one := w.byLife[life]
	if one == nil {
		if len(all) == 0 {
			return nil
		}
		if len(w.byLife) >= maxOrigins {
			return fmt.Errorf("more than %d replicas want prefixes", maxOrigins)
		}
		one = &want{from: replicaLife{life, strings.Clone(id)}}
		w.byLife[life] = one
	}
	one.told = time.Now()
	if slices.Equal(all, one.prefixes) {
		return nil
	}
	for i := range all {
		all[i] = strings.Clone(all[i]) // so that the frame is not kept
		w.index.Add(all[i], one.from)
	}
	for _, p := range one.prefixes {
		if !slices.Contains(all, p) {
			w.index.Remove(p, one.from)
		}
	}
	if one.prefixes = all; len(all) == 0 {
		delete(w.byLife, life)
	}
	return nil
}

// forget forgets the replicas that have told nothing for long. It runs with each
// probe that comes back.
func (w *wants) forget() {
	for life, one := range w.byLife {
		if time.Since(one.told) < wantsWait {
			continue
		}
		for _, p := range one.prefixes {
			w.index.Remove(p, one.from)
		}
		delete(w.byLife, life)
	}
}

// copies puts a copy behind each frame whose channel begins with a prefix that
// another replica wants.
func (s *sender) copies() {
	if s.wants.index.Empty() {
		return
	}
	s.whole = append(s.whole[:0], s.groups...)
	s.groups = s.groups[:0]
	for i := range s.whole {
		g := s.whole[i]
		s.groups = append(s.groups, g)
		if g.kind != frameMessages || g.channel == "" {
			continue
		}
		first := len(s.groups)
		s.wants.index.Find(g.channel, func(replicas []replicaLife) {
			for _, r := range replicas {
				c := g
				c.kind, c.name, c.packets = frameCopy, s.node(r.id), 0
				if !slices.ContainsFunc(s.groups[first:], func(other group) bool { return other.name == c.name }) {
					s.groups = append(s.groups, c)
				}
			}
		})
	}
}
