package zmqmesh

import (
	"slices"
	"sync"
)

// An index says which peers want which channel. Its locks also keep the packets
// of a channel in the order of their Seq: Publish holds one while it gives the
// packet its Seq and queues it.
type index [shards]indexShard

type indexShard struct {
	mu      sync.Mutex // guards the fields below
	wanted  map[string][]*peer
	scratch []byte   // to encode in
	_       [16]byte // so that two of them share no cache line
}

func (x *index) shard(channel string) *indexShard { return &x[shardOf(channel)] }

func (x *index) add(channel string, p *peer) {
	s := x.shard(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted == nil {
		s.wanted = make(map[string][]*peer)
	}
	s.wanted[channel] = append(s.wanted[channel], p)
}

func (x *index) remove(channel string, p *peer) {
	s := x.shard(channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[channel] = slices.DeleteFunc(s.wanted[channel], func(other *peer) bool { return other == p })
	if len(s.wanted[channel]) == 0 {
		delete(s.wanted, channel)
	}
}
