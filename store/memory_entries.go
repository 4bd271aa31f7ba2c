package store

import (
	"container/heap"
	"container/list"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// Estimates of what things take besides their text, in bytes, including Go's
// overhead (TestMemoryCountsWhatItTakes).
const (
	logOverhead   = 360 // memLog, its place in a list and in the map, the epoch
	entryOverhead = 80  // up to two places in the ring, and rounding
	keyOverhead   = 136 // idempotencyKey, its places in the map and in the heap
)

func logCost(name string) int64 { return int64(len(name)) + logOverhead }

// memLog is the log of one channel in a Memory.
type memLog struct {
	name string

	mu    sync.Mutex // guards the fields below, up to el
	gone  bool       // no longer in the Memory: look it up again
	epoch string     // empty before the log has begun and after it has ended
	top   uint64

	entries    ring // the newest has offset top
	entryBytes int64
	ttl        time.Duration // of the last Append
	until      time.Duration // when epoch and top may be forgotten

	keys     map[string]*idempotencyKey
	byExpiry keyHeap
	keyBytes int64

	// Guarded by Memory.mu; changed only with mu held too.
	el     *list.Element
	isBare bool // el is in Memory.bare, not in Memory.live
}

// idempotencyKey remembers which entry was appended with a key.
type idempotencyKey struct {
	key     string
	digest  string
	offset  uint64
	expires time.Duration
}

func (k *idempotencyKey) cost() int64 { return int64(len(k.key)+len(k.digest)) + keyOverhead }

// add appends p and returns how many bytes the log grew by.
func (l *memLog) add(p packed, o AppendOptions) (grown int64) {
	if l.epoch == "" {
		l.epoch = newEpoch()
	}
	l.top++
	l.ttl = o.TTL
	grown -= l.expireEntries(p.at)
	for l.entries.n >= o.Size {
		grown -= l.popEntry()
	}
	l.entries.push(p)
	l.entryBytes += p.cost()
	grown += p.cost()

	l.stayUntil(saturatingAdd(p.at, max(MetaTTL, o.TTL)))
	if o.Key != "" {
		k := &idempotencyKey{strings.Clone(o.Key), strings.Clone(o.Digest), l.top, saturatingAdd(p.at, o.KeyTTL)}
		if l.keys == nil {
			l.keys = make(map[string]*idempotencyKey)
		}
		l.keys[k.key] = k
		heap.Push(&l.byExpiry, k)
		l.keyBytes += k.cost()
		grown += k.cost()
		l.stayUntil(k.expires)
	}
	return grown
}

// seen returns what is remembered of a key, or nil. Call expire first.
func (l *memLog) seen(key string) *idempotencyKey {
	if key == "" {
		return nil
	}
	return l.keys[key]
}

// stay keeps a log remembered that was just asked for.
func (l *memLog) stay(now time.Duration) {
	ttl := MetaTTL
	if l.top == 0 {
		ttl = EmptyTTL
	}
	l.stayUntil(saturatingAdd(now, ttl))
}

func (l *memLog) stayUntil(t time.Duration) { l.until = max(l.until, t) }

// expire drops what has expired, and returns how many bytes that freed.
func (l *memLog) expire(now time.Duration) (freed int64) {
	if l.epoch == "" {
		return 0
	}
	if now >= l.until {
		// Entries and keys never outlive until.
		freed = l.entryBytes + l.keyBytes
		l.clear()
		return freed
	}
	for len(l.byExpiry) > 0 && l.byExpiry[0].expires <= now {
		freed += l.popKey()
	}
	return freed + l.expireEntries(now)
}

func (l *memLog) expireEntries(now time.Duration) (freed int64) {
	for l.entries.n > 0 && now-l.entries.at(0).at >= l.ttl {
		freed += l.popEntry()
	}
	if l.entries.n == 0 {
		l.entries = ring{}
	}
	return freed
}

// shrink drops the oldest entries, or the keys that expire first, whichever
// take more memory, until it has freed need bytes. It keeps the newest entry if
// keepNewest is set.
func (l *memLog) shrink(need int64, keepNewest bool) (freed int64) {
	least := 0
	if keepNewest {
		least = 1
	}
	for freed < need {
		entries, keys := l.entries.n > least, len(l.byExpiry) > 0
		switch {
		case entries && (!keys || l.entryBytes >= l.keyBytes):
			freed += l.popEntry()
		case keys:
			freed += l.popKey()
		default:
			return freed
		}
	}
	return freed
}

// clear resets the log to one that was never appended to.
func (l *memLog) clear() {
	l.epoch, l.top, l.until = "", 0, 0
	l.entries, l.entryBytes = ring{}, 0
	l.keys, l.byExpiry, l.keyBytes = nil, nil, 0
}

// empty reports whether the log has neither entries nor keys.
func (l *memLog) empty() bool { return l.entries.n == 0 && len(l.byExpiry) == 0 }

func (l *memLog) popEntry() (freed int64) {
	p := l.entries.pop()
	l.entryBytes -= p.cost()
	return p.cost()
}

func (l *memLog) popKey() (freed int64) {
	k := heap.Pop(&l.byExpiry).(*idempotencyKey)
	delete(l.keys, k.key)
	l.keyBytes -= k.cost()
	if len(l.byExpiry) == 0 {
		l.keys, l.byExpiry = nil, nil // a map never shrinks
	}
	return k.cost()
}

// first is the offset of the oldest entry, or of the next one to be appended.
func (l *memLog) first() uint64 { return l.top - uint64(l.entries.n) + 1 }

// slice copies what q selects. offset is that of the first entry found.
func (l *memLog) slice(q Query) (offset uint64, found []packed) {
	first, last := l.first(), l.top
	if q.After >= last || q.Limit <= 0 {
		return 0, nil
	}
	lo, hi := max(first, q.After+1), last
	if q.Before != 0 {
		hi = min(hi, q.Before-1)
	}
	if lo > hi {
		return 0, nil
	}
	if n := uint64(q.Limit); hi-lo >= n {
		if q.Newest {
			lo = hi - n + 1
		} else {
			hi = lo + n - 1
		}
	}
	found = make([]packed, hi-lo+1)
	for i := range found {
		found[i] = *l.entries.at(int(lo-first) + i)
	}
	return lo, found
}

// newEpoch returns 50 random bits as 10 letters and digits.
func newEpoch() string { return strings.Clone(rand.Text()[:10]) }

// packed is an Entry with its texts in one immutable allocation.
type packed struct {
	text   string        // the header, the body, the info
	header uint32        // the header's length
	info   uint32        // the info's length
	at     time.Duration // when it was appended; see Memory.now
	wall   int64         // the same in milliseconds since 1970
}

func pack(e Entry) packed {
	var b strings.Builder
	b.Grow(len(e.Header) + len(e.Body) + len(e.Info))
	b.WriteString(e.Header)
	b.Write(e.Body)
	b.Write(e.Info)
	return packed{text: b.String(), header: uint32(len(e.Header)), info: uint32(len(e.Info))}
}

func (p packed) unpack(offset uint64) Entry {
	info := len(p.text) - int(p.info)
	e := Entry{
		Offset: offset,
		Time:   time.UnixMilli(p.wall).UTC(),
		Header: p.text[:p.header],
		Body:   json.RawMessage(p.text[p.header:info]),
	}
	if p.info > 0 {
		e.Info = []byte(p.text[info:])
	}
	return e
}

func (p packed) cost() int64 { return int64(len(p.text)) + entryOverhead }

// ring is a queue of entries. Adding the newest, dropping the oldest and
// finding one by its place take constant time.
type ring struct {
	buf     []packed // its length is 0 or a power of two
	head, n int
}

// at returns the i-th oldest entry.
func (r *ring) at(i int) *packed { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring) push(p packed) {
	if r.n == len(r.buf) {
		r.resize(max(1, 2*r.n))
	}
	r.n++
	*r.at(r.n - 1) = p
}

func (r *ring) pop() packed {
	p := *r.at(0)
	*r.at(0) = packed{}
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	if len(r.buf) > 8 && r.n < len(r.buf)/4 {
		r.resize(len(r.buf) / 2)
	}
	return p
}

func (r *ring) resize(size int) {
	buf := make([]packed, size)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}

// keyHeap orders keys by their expiry, since their KeyTTLs may differ.
type keyHeap []*idempotencyKey

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i].expires < h[j].expires }
func (h keyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *keyHeap) Push(k any)        { *h = append(*h, k.(*idempotencyKey)) }
func (h *keyHeap) Pop() any {
	last := len(*h) - 1
	k := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return k
}
