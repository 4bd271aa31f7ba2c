package zmqmesh

import (
	"context"
	"fmt"
	"slices"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

const (
	bigPacket     = chunkBytes / 2 // bytes; from here on, the queues share a packet instead of copying it
	packetNumbers = 64             // bytes; more than the numbers before and between a packet's fields take
)

// MaxBody is MaxPacketBytes less what the other fields may have.
func (m *Mesh) MaxBody() int {
	return max(m.opts.MaxPacketBytes-packetNumbers-mesh.MaxFieldBytes, 0)
}

// Publish only looks at a table if no replica wants the packet, and encodes it
// once for all that do. It fails if the packet is larger than MaxPacketBytes, if
// its channel's name is longer than 512 bytes, or if no other replica is connected
// because none can be accepted.
func (m *Mesh) Publish(_ context.Context, p mesh.Packet) error {
	if m.closed.Load() {
		return mesh.ErrClosed
	}
	if len(p.Trace) > mesh.MaxTraceBytes {
		p.Trace = nil
	}
	size := packetNumbers + len(p.Channel) + len(p.To) + len(p.Header) + len(p.Body) + len(p.Epoch) + len(p.Sender) + len(p.Info) + len(p.Trace)
	if size > m.opts.MaxPacketBytes {
		return fmt.Errorf("zmqmesh: a packet on %.100q has %d bytes; at most %d are allowed (MaxPacketBytes)", p.Channel, size, m.opts.MaxPacketBytes)
	}
	if len(p.Channel) > maxTopic {
		return checkChannel(p.Channel)
	}
	if p.Kind >= mesh.KindLost {
		return fmt.Errorf("zmqmesh: a packet of kind %d cannot be published; it must be one of those before KindLost", p.Kind)
	}
	if len(*m.everyone.Load()) == 0 {
		return m.listener.Err()
	}
	s := m.index.shard(p.Channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.wanted[p.Channel]
	switch {
	case p.To != "":
		m.mu.RLock()
		one := m.peers[p.To]
		m.mu.RUnlock()
		if to = nil; one != nil {
			to = []*peer{one}
		}
	case p.Channel == "":
		to = *m.everyone.Load()
	default:
		m.wide.Find(p.Channel, func(more []*peer) {
			for _, peer := range more {
				if !slices.Contains(to, peer) {
					to = append(to[:len(to):len(to)], peer)
				}
			}
		})
	}
	if len(to) == 0 {
		return nil
	}
	p.Seq = m.seq.Add(1)
	big := size > bigPacket
	var b []byte
	if big {
		b = packet.Append(append(make([]byte, 0, size), sendPackets), &p)
	} else {
		s.scratch = packet.Append(s.scratch[:0], &p)
		b = s.scratch
	}
	for _, peer := range to {
		peer.put(b, big)
	}
	return nil
}
