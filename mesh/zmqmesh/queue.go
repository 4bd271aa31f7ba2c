package zmqmesh

import (
	"encoding/binary"
	"sync"

	"github.com/go-zeromq/zmq4"
)

// A chunk is one message: its first byte, and packets.
type chunk struct {
	b       []byte
	packets int
	shared  bool // with other peers, so it is never changed
}

// chunkPool holds buffers of chunkBytes, with room for a seal.
var chunkPool = sync.Pool{New: func() any { b := make([]byte, 0, chunkBytes+sealBytes); return &b }}

// put queues an encoded packet. A big one comes with its first byte and becomes a
// chunk of its own, shared and never changed. Any other is copied.
func (p *peer) put(b []byte, big bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	need := chunkBytes
	var last *chunk
	if n := len(p.chunks); n > 0 {
		last = &p.chunks[n-1]
	}
	switch {
	case big:
		need = len(b)
	case last != nil && !last.shared && len(last.b)+len(b) <= chunkBytes:
		need = 0
	}
	if p.closed || p.leaving {
		return // it has gone, and only the index does not know yet
	}
	if len(b) > p.max || p.queued+need > p.mesh.opts.QueueBytes || p.packets >= p.mesh.opts.QueuePackets {
		p.dropLocked(1)
		p.wake.Ring()
		return
	}
	p.queued += need
	p.packets++
	switch {
	case big:
		p.chunks = append(p.chunks, chunk{b, 1, true})
	case need > 0:
		c := append((*chunkPool.Get().(*[]byte))[:0], sendPackets)
		p.chunks = append(p.chunks, chunk{append(c, b...), 1, false})
	default:
		last.b = append(last.b, b...)
		last.packets++
	}
	p.wake.Ring()
}

func (p *peer) dropLocked(n int) {
	p.dropped += int64(n)
	p.mesh.dropped.Add(int64(n))
	p.lost = true
}

// write sends what is queued. What is put meanwhile goes into the same buffer,
// which is flushed only when nothing is left.
func (p *peer) write() {
	defer close(p.wrote)
	var err error
	defer func() { p.close(err) }()
	frames := make([][]byte, 1)
	sendSealed := func(b []byte) {
		if err == nil {
			frames[0] = b
			err = p.conn.SendMsg(zmq4.Msg{Frames: frames})
		}
	}
	send := func(b []byte) { sendSealed(p.out.close(b)) }
	var number [9]byte
	answer := func(echoes []uint64) {
		for _, n := range echoes {
			number[0] = sendEcho
			binary.BigEndian.PutUint64(number[1:], n)
			send(number[:])
		}
	}
	for err == nil {
		p.mu.Lock()
		for len(p.chunks) == 0 && len(p.echoes) == 0 && !p.lost {
			leaving := p.leaving
			p.mu.Unlock()
			if leaving {
				send([]byte{sendBye})
			}
			if err == nil {
				err = p.guard.Flush()
			}
			if leaving || err != nil {
				return
			}
			select {
			case <-p.gone:
				return
			case <-p.wake:
			}
			p.mu.Lock()
		}
		chunks, echoes, lost := p.chunks, p.echoes, p.lost
		p.chunks, p.echoes, p.lost = nil, nil, false
		p.mu.Unlock()

		// Losses and echoes go first: a full queue, which a slow replica may take
		// minutes for, must not hold them up.
		if lost {
			send([]byte{sendLost})
		}
		answer(echoes)
		for _, c := range chunks {
			if c.shared {
				send(c.b)
			} else {
				sendSealed(p.out.closeOwn(c.b))
			}
			if err != nil {
				return
			}
			size := len(c.b)
			if !c.shared {
				size = chunkBytes
				chunkPool.Put(&c.b)
			}
			p.mu.Lock()
			if !p.closed { // close has set both to 0
				p.queued -= size
				p.packets -= c.packets
			}
			echoes, p.echoes = p.echoes, nil
			p.mu.Unlock()
			answer(echoes)
		}
	}
}
