package zmqmesh

import (
	"hash/maphash"
	"sync"
	"time"
)

// lingering is how long a topic stays subscribed to after Unsubscribe: a
// subscriber who comes back soon has missed nothing, and other replicas are not
// bothered.
const lingering = 3 * time.Second

const sweepPeriod = time.Second

// A topic is what a replica can ask for: a channel, or with prefix every channel
// whose name begins so.
type topic struct {
	name   string
	prefix bool
}

// topics are what this replica wants from all others. A shard's lock is held while
// a change is queued for each link, so that every link gets the changes of a topic
// in order.
type topics [shards]topicShard

type topicShard struct {
	mu       sync.RWMutex // guards the fields below
	channels map[string]*subscribed
	prefixes map[string]*subscribed
	_        [24]byte // so that two of them share no cache line
}

// of returns the topics of t's kind. They are apart, since a string is found faster than
// a topic.
func (s *topicShard) of(t topic) map[string]*subscribed {
	if t.prefix {
		return s.prefixes
	}
	return s.channels
}

// subscribed is a topic that is subscribed to.
type subscribed struct {
	topic
	still  bool      // it is still wanted
	left   time.Time // when it was last unsubscribed from
	listed bool      // it is in Mesh.left
}

// find reports whether a channel is subscribed to by its name, and returns that
// without allocating.
func (t *topics) find(channel []byte) (string, bool) {
	s := &t[maphash.Bytes(seed, channel)%shards] // the same as shardOf
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := s.channels[string(channel)] // does not allocate a string
	if found == nil {
		return "", false
	}
	return found.name, true
}

// subscribe asks every link for a topic.
func (m *Mesh) subscribe(t topic) {
	s := &m.topics[shardOf(t.name)]
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.of(t)[t.name]
	if w == nil {
		if s.channels == nil {
			s.channels, s.prefixes = make(map[string]*subscribed), make(map[string]*subscribed)
		}
		w = &subscribed{topic: t}
		s.of(t)[t.name] = w
		if t.prefix {
			m.begins.Add(t.name, t)
		}
		for _, l := range *m.live.Load() {
			l.want(t, true)
		}
	}
	w.still = true
}

// unsubscribe has sweep leave a topic later.
func (m *Mesh) unsubscribe(t topic) {
	s := &m.topics[shardOf(t.name)]
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.of(t)[t.name]
	if w == nil || !w.still {
		return
	}
	w.still, w.left = false, time.Now()
	if !w.listed {
		w.listed = true
		m.leftMu.Lock()
		m.left = append(m.left, w)
		m.leftMu.Unlock()
	}
}

// sweep leaves the topics that have not been wanted for a while.
func (m *Mesh) sweep() {
	m.leftMu.Lock()
	left := m.left
	m.left = nil
	m.leftMu.Unlock()
	var kept []*subscribed
	for _, w := range left {
		s := &m.topics[shardOf(w.name)]
		s.mu.Lock()
		switch {
		case w.still:
			w.listed = false
		case time.Since(w.left) < lingering:
			kept = append(kept, w)
		default:
			delete(s.of(w.topic), w.name)
			if w.prefix {
				m.begins.Remove(w.name, w.topic)
			}
			for _, l := range *m.live.Load() {
				l.want(w.topic, false)
			}
		}
		s.mu.Unlock()
	}
	m.leftMu.Lock()
	m.left = append(m.left, kept...)
	m.leftMu.Unlock()
}

// wantAll queues all topics for a new link, which must be in Mesh.live already.
func (m *Mesh) wantAll(l *link) {
	for i := range m.topics {
		s := &m.topics[i]
		s.mu.RLock()
		for _, all := range []map[string]*subscribed{s.channels, s.prefixes} {
			for _, w := range all {
				l.want(w.topic, true)
			}
		}
		s.mu.RUnlock()
	}
}

const shards = 64

// shardOf spreads names over locks.
func shardOf(name string) int { return int(maphash.String(seed, name) % shards) }

var seed = maphash.MakeSeed()
