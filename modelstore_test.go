package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/channels-go/channels/store"
)

// modelStore is a Store that keeps one log as simply as can be, knows all that
// was ever appended, and does to the log what servers do: it trims, lets
// entries expire, loses the last ones or all of it, answers late, fails, or
// does what it was asked and loses the answer. The rest is a store.Memory's.
type modelStore struct {
	*store.Memory
	size int

	mu     sync.Mutex // guards the fields below
	rand   *rand.Rand
	down   bool
	late   time.Duration // how long a call takes at the most, before and after its work
	fail   float64       // the share of calls that fail
	log    modelLog
	epochs int
	keys   map[string]store.Position
	lives  map[string]*life
}

// modelLog is the log as it is now; the zero one is absent.
type modelLog struct {
	top, first uint64
	epoch      string
	rewound    bool // it has lost its end, and no append has come since
	earlier    []store.Position
}

// A life is all that was ever appended under one epoch.
type life struct {
	parent  store.Position // what it went on from: up to there, its entries are the parent's
	bodies  map[uint64]string
	over    bool     // the whole log was lost
	rewinds []uint64 // each time its last entries were lost: what was left
	first   uint64   // entries before it were no longer kept at some time
}

var errModel = fmt.Errorf("model: %w", store.ErrUnavailable)

func newModelStore(t *testing.T, rnd *rand.Rand, size int) *modelStore {
	return &modelStore{Memory: newMemory(t), size: size, rand: rnd, keys: map[string]store.Position{}, lives: map[string]*life{}}
}

// pause is a part of the way to the Store or back.
func (s *modelStore) pause(ctx context.Context) error {
	s.mu.Lock()
	d := time.Duration(0)
	if s.late > 0 {
		d = time.Duration(s.rand.Int64N(int64(s.late)))
	}
	fails := s.down || s.rand.Float64() < s.fail
	s.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fails {
		return errModel
	}
	return nil
}

func (s *modelStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if ch != modelChannel {
		return s.Memory.Append(ctx, ch, e, o)
	}
	if err := s.pause(ctx); err != nil {
		return store.Appended{}, err
	}
	pos, dup := s.append(string(e.Body), o.Key)
	return store.Appended{Position: pos, Duplicate: dup}, s.pause(ctx) // an error is a lost answer
}

func (s *modelStore) append(body, key string) (pos store.Position, dup bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.log
	if pos, dup = s.keys[key]; dup && key != "" {
		return pos, true
	}
	if l.epoch == "" || l.rewound {
		s.live()
	}
	l.top++
	s.lives[l.epoch].bodies[l.top] = body
	s.trim(l.top - min(l.top, uint64(s.size)) + 1)
	pos = store.Position{Epoch: l.epoch, Offset: l.top}
	if key != "" {
		s.keys[key] = pos
	}
	return pos, false
}

// live begins a life of the log. s.mu is held.
func (s *modelStore) live() {
	s.epochs++
	l := &s.log
	before := store.Position{Epoch: l.epoch, Offset: l.top}
	l.epoch, l.rewound = fmt.Sprintf("e%d", s.epochs), false
	s.lives[l.epoch] = &life{parent: before, bodies: map[uint64]string{}}
	if before.Epoch == "" {
		l.first, l.top, l.earlier = 1, 0, nil
		return
	}
	for i := range l.earlier {
		l.earlier[i].Offset = min(l.earlier[i].Offset, before.Offset)
	}
	l.earlier = append([]store.Position{before}, l.earlier...)
	l.earlier = l.earlier[:min(len(l.earlier), 8)]
}

func (s *modelStore) Begin(ctx context.Context, ch string) (store.Position, error) {
	if ch != modelChannel {
		return s.Memory.Begin(ctx, ch)
	}
	if err := s.pause(ctx); err != nil {
		return store.Position{}, err
	}
	s.mu.Lock()
	if s.log.epoch == "" {
		s.live()
	}
	at := store.Position{Epoch: s.log.epoch, Offset: s.log.top}
	s.mu.Unlock()
	return at, s.pause(ctx)
}

func (s *modelStore) trim(first uint64) {
	l := &s.log
	l.first = max(l.first, first)
	if now := s.lives[l.epoch]; now != nil {
		now.first = max(now.first, l.first)
	}
}

func (s *modelStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	if ch != modelChannel {
		return s.Memory.Range(ctx, ch, q)
	}
	if err := s.pause(ctx); err != nil {
		return store.Page{}, err
	}
	s.mu.Lock()
	l := s.log
	page := store.Page{Top: store.Position{Epoch: l.epoch, Offset: l.top}, First: l.first, Earlier: slices.Clone(l.earlier)}
	from := max(l.first, q.After+1)
	if q.Newest { // of few bytes: no test asks for more than MaxBytes
		from = max(from, l.top+1-min(uint64(q.Limit), l.top))
	}
	for n, bytes := from, 0; l.epoch != "" && n <= l.top && len(page.Entries) < q.Limit; n++ {
		body, _ := s.body(store.Position{Epoch: l.epoch, Offset: n})
		if bytes += len(body); bytes > q.MaxBytes && len(page.Entries) > 0 && !q.Newest {
			break
		}
		page.Entries = append(page.Entries, store.Entry{Offset: n, Header: "n", Body: json.RawMessage(body)})
	}
	s.mu.Unlock()
	return page, s.pause(ctx)
}

func (s *modelStore) Tops(ctx context.Context, chs []string) ([]store.Position, error) {
	if !slices.Contains(chs, modelChannel) {
		return s.Memory.Tops(ctx, chs)
	}
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	tops := make([]store.Position, len(chs))
	for i, ch := range chs {
		if ch == modelChannel {
			tops[i] = s.top()
		}
	}
	return tops, s.pause(ctx)
}

func (s *modelStore) top() store.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Position{Epoch: s.log.epoch, Offset: s.log.top}
}

// body is what was appended at a position. s.mu is held.
func (s *modelStore) body(at store.Position) (body string, ok bool) {
	for l := s.lives[at.Epoch]; l != nil; l = s.lives[l.parent.Epoch] {
		if at.Offset > l.parent.Offset || l.parent.Epoch == "" {
			body, ok = l.bodies[at.Offset]
			return body, ok
		}
	}
	return "", false
}

// shared is up to which offset of at the log of an epoch is the same; known is
// false where it shares nothing with it.
func (s *modelStore) shared(at store.Position, epoch string) (offset uint64, known bool) {
	offset = at.Offset
	for epoch != at.Epoch {
		l := s.lives[epoch]
		if l == nil || l.parent.Epoch == "" {
			return 0, at == store.Position{}
		}
		offset = min(offset, l.parent.Offset)
		epoch = l.parent.Epoch
	}
	return offset, true
}

// The faults of a log.

func (s *modelStore) expire(share float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.log; l.epoch != "" {
		s.trim(l.first + uint64(share*float64(l.top+1-l.first)))
	}
}

func (s *modelStore) loseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[s.log.epoch]; l != nil {
		l.over = true
	}
	s.log = modelLog{}
	clear(s.keys)
}

// loseEnd loses n of the last entries.
func (s *modelStore) loseEnd(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.log
	if n = min(n, l.top+1-l.first); l.epoch == "" || n == 0 {
		return
	}
	l.top -= n
	l.rewound = true
	s.lives[l.epoch].rewinds = append(s.lives[l.epoch].rewinds, l.top)
	for key, pos := range s.keys {
		if o, ok := s.shared(pos, l.epoch); !ok || o < pos.Offset || pos.Offset > l.top {
			delete(s.keys, key)
		}
	}
}

// justifies says whether a subscriber that had everything up to at may be told
// that it goes on behind to, with something missing.
func (s *modelStore) justifies(at, to store.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.body(at); !ok && at.Offset > 0 || at.Epoch != "" && s.lives[at.Epoch] == nil {
		return nil // there has never been such a position: it came with that
	}
	if at.Offset == 0 {
		for _, l := range s.lives {
			if l.over || len(l.rewinds) > 0 {
				return nil // what was lost is what it was about to get
			}
		}
	}
	if to.Epoch == "" || s.lives[at.Epoch] != nil && s.overAlong(at.Epoch) {
		return nil // all of it is lost
	}
	offset, known := s.shared(at, to.Epoch)
	switch {
	case !known:
		return nil
	case offset < at.Offset: // it had what this life has not
		if to.Offset < offset && !s.rewound(to) {
			return fmt.Errorf("the lives part at %d", offset)
		}
		return nil
	case at.Offset >= to.Offset: // the end was lost
		if !s.rewound(to) {
			return errors.New("nothing was lost")
		}
		return nil
	case s.lives[to.Epoch].first > at.Offset+1 || s.firstBefore(to.Epoch) > at.Offset+1:
		return nil
	}
	return fmt.Errorf("what follows %d has been kept all the time", at.Offset)
}

// rewound says whether what was behind a position was lost at some time.
func (s *modelStore) rewound(at store.Position) bool {
	for l := s.lives[at.Epoch]; l != nil; l = s.lives[l.parent.Epoch] {
		if slices.ContainsFunc(l.rewinds, func(left uint64) bool { return left <= at.Offset }) {
			return true
		}
	}
	return false
}

// overAlong says whether the log of an epoch, or one that went on from it, was
// lost as a whole.
func (s *modelStore) overAlong(epoch string) bool {
	for e, l := range s.lives {
		if !l.over {
			continue
		}
		for ; l != nil; e, l = l.parent.Epoch, s.lives[l.parent.Epoch] {
			if e == epoch {
				return true
			}
		}
	}
	return false
}

func (s *modelStore) firstBefore(epoch string) (first uint64) {
	for l := s.lives[epoch]; l != nil; l = s.lives[l.parent.Epoch] {
		first = max(first, l.first)
	}
	return first
}
