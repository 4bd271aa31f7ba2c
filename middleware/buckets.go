package middleware

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// buckets are token buckets by key, in shards. Each shard first forgets the
// bucket that was used the longest time ago. A full bucket is the same as a new
// one, so it may be forgotten when another one is added.
type buckets[K comparable] struct {
	rate   Rate
	max    int // in each shard
	seed   maphash.Seed
	shards [shardCount]shard[K]
}

const shardCount = 16

type shard[K comparable] struct {
	mu    sync.Mutex // guards the fields below
	byKey map[K]*list.Element
	used  list.List // of *bucket[K]; in front the one used last
}

type bucket[K comparable] struct {
	key     K
	limiter *rate.Limiter
}

// newBuckets returns nil, which limits nothing, for the zero Rate.
func newBuckets[K comparable](r Rate, entries int) *buckets[K] {
	if r == (Rate{}) {
		return nil
	}
	return &buckets[K]{rate: r, max: (entries + shardCount - 1) / shardCount, seed: maphash.MakeSeed()}
}

// take takes one token from the key's bucket. It returns 0, or how long to wait
// for the next token.
func (b *buckets[K]) take(key K) time.Duration {
	if b == nil {
		return 0
	}
	s := &b.shards[maphash.Comparable(b.seed, key)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	l := s.get(b, key, now)
	if l.AllowN(now, 1) {
		return 0
	}
	return b.until(l, now)
}

// wait is take without taking.
func (b *buckets[K]) wait(key K) time.Duration {
	s := &b.shards[maphash.Comparable(b.seed, key)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		return 0
	}
	l, now := e.Value.(*bucket[K]).limiter, time.Now()
	if l.TokensAt(now) >= 1 {
		return 0
	}
	return b.until(l, now)
}

// until returns how long to wait for the next token of an empty bucket.
func (b *buckets[K]) until(l *rate.Limiter, now time.Time) time.Duration {
	wait := time.Duration((1 - l.TokensAt(now)) / b.rate.PerSecond * float64(time.Second))
	return max(wait, time.Nanosecond)
}

// get returns the key's bucket. It adds a full one if there is none.
func (s *shard[K]) get(b *buckets[K], key K, now time.Time) *rate.Limiter {
	if e := s.byKey[key]; e != nil {
		s.used.MoveToFront(e)
		return e.Value.(*bucket[K]).limiter
	}
	if s.byKey == nil {
		s.byKey = make(map[K]*list.Element)
	}
	for range 2 { // two for each new one, so that the number of idle buckets shrinks
		if e := s.used.Back(); e != nil && (len(s.byKey) >= b.max || e.Value.(*bucket[K]).limiter.TokensAt(now) >= float64(b.rate.Burst)) {
			delete(s.byKey, s.used.Remove(e).(*bucket[K]).key)
		}
	}
	l := rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
	s.byKey[key] = s.used.PushFront(&bucket[K]{key, l})
	return l
}
