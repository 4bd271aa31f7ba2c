package zmqmesh

import (
	"hash/maphash"
	"sync"
	"time"
)

// lingering is how long a channel stays subscribed to after Unsubscribe: a
// subscriber who comes back soon has missed nothing, and other replicas are not
// bothered.
const lingering = 3 * time.Second

const sweepPeriod = time.Second

// topics are the channels that this replica wants from all others. A shard's lock
// is held while a change is queued for each link, so that every link gets the
// changes of a channel in order.
type topics [shards]topicShard

type topicShard struct {
	mu  sync.RWMutex // guards the field below
	all map[string]*topic
	_   [24]byte // so that two of them share no cache line
}

type topic struct {
	channel string
	wanted  bool
	left    time.Time // when it was last unsubscribed from
	listed  bool      // it is in Mesh.left
}

// find reports whether a channel is subscribed to, and returns its name without
// allocating.
func (t *topics) find(channel []byte) (string, bool) {
	s := &t[maphash.Bytes(seed, channel)%shards] // the same as shardOf
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.all[string(channel)]
	if !ok {
		return "", false
	}
	return found.channel, true
}

// subscribe asks every link for a channel; "" stands for all channels.
func (m *Mesh) subscribe(channel string) {
	s := &m.topics[shardOf(channel)]
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[channel]
	if t == nil {
		if s.all == nil {
			s.all = make(map[string]*topic)
		}
		t = &topic{channel: channel}
		s.all[channel] = t
		for _, l := range *m.live.Load() {
			l.want(channel, true)
		}
	}
	t.wanted = true
}

// unsubscribe has sweep leave a channel later.
func (m *Mesh) unsubscribe(channel string) {
	s := &m.topics[shardOf(channel)]
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[channel]
	if t == nil || !t.wanted {
		return
	}
	t.wanted, t.left = false, time.Now()
	if !t.listed {
		t.listed = true
		m.leftMu.Lock()
		m.left = append(m.left, t)
		m.leftMu.Unlock()
	}
}

// sweep leaves the channels that have not been wanted for a while.
func (m *Mesh) sweep() {
	m.leftMu.Lock()
	left := m.left
	m.left = nil
	m.leftMu.Unlock()
	var kept []*topic
	for _, t := range left {
		s := &m.topics[shardOf(t.channel)]
		s.mu.Lock()
		switch {
		case t.wanted:
			t.listed = false
		case time.Since(t.left) < lingering:
			kept = append(kept, t)
		default:
			delete(s.all, t.channel)
			for _, l := range *m.live.Load() {
				l.want(t.channel, false)
			}
		}
		s.mu.Unlock()
	}
	m.leftMu.Lock()
	m.left = append(m.left, kept...)
	m.leftMu.Unlock()
}

// wantAll queues all channels for a new link, which must be in Mesh.live already.
func (m *Mesh) wantAll(l *link) {
	for i := range m.topics {
		s := &m.topics[i]
		s.mu.RLock()
		for ch := range s.all {
			l.want(ch, true)
		}
		s.mu.RUnlock()
	}
}

const shards = 64

// shardOf spreads channels over locks.
func shardOf(channel string) int { return int(maphash.String(seed, channel) % shards) }

var seed = maphash.MakeSeed()
