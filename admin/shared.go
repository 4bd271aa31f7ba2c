package admin

import (
	"sync"
	"time"

	"github.com/channels-go/channels"
)

// sharing keeps answers for a while, so that many viewers who ask the same cost no more
// than one. All its methods may be called concurrently.
type sharing[K comparable, V any] struct {
	most int // answers that are kept at a time
	// read makes an answer, and says until when it is good. before is the last one to the
	// same question, if that is still kept. It gets no viewer's context, since others share
	// what it returns.
	read func(key K, before V) (V, time.Time, error)

	mu  sync.Mutex // guards the fields below, and those of answers that say so
	all map[K]*shared[V]
}

// A shared answer is there when done is closed. Then only used changes.
type shared[V any] struct {
	done  chan struct{}
	value V
	err   error
	good  time.Time // until when
	used  time.Time // guarded by sharing.mu
}

// sharedForgotten is how long after its last use an answer is dropped.
const sharedForgotten = 30 * time.Second

// get returns an answer that is good. If there is none, the caller reads it, and others
// who come meanwhile wait for that. An error is good for those who wait already.
func (s *sharing[K, V]) get(key K) (V, error) {
	now := time.Now()
	s.mu.Lock()
	one := s.all[key]
	mine := one == nil || one.isDone() && now.After(one.good)
	var before V
	if mine {
		if one != nil {
			before = one.value
		}
		one = &shared[V]{done: make(chan struct{})}
		s.putLocked(key, one)
	}
	one.used = now
	s.mu.Unlock()
	if mine {
		s.fill(one, key, before)
	}
	<-one.done
	return one.value, one.err
}

func (s *sharing[K, V]) fill(one *shared[V], key K, before V) {
	defer close(one.done) // also if read panics
	one.err = channels.ErrInternal
	value, good, err := s.read(key, before)
	if err != nil {
		one.err = err // good for nobody who comes later
		return
	}
	one.value, one.good, one.err = value, good, nil
}

func (s *shared[V]) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// putLocked keeps an answer, instead of that to the same question, or of the one that was
// used the longest time ago.
func (s *sharing[K, V]) putLocked(key K, one *shared[V]) {
	if s.all == nil {
		s.all = map[K]*shared[V]{}
	}
	if _, ok := s.all[key]; !ok && len(s.all) >= s.most {
		var oldest K
		var used time.Time
		for k, other := range s.all {
			if used.IsZero() || other.used.Before(used) {
				oldest, used = k, other.used
			}
		}
		delete(s.all, oldest)
	}
	s.all[key] = one
}

// forget drops the answers that nobody asks for.
func (s *sharing[K, V]) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.all {
		if one.isDone() && time.Since(one.used) > sharedForgotten {
			delete(s.all, key)
		}
	}
}
