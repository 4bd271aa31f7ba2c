package zmqmesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
)

// A peer is the connection of a replica that has dialled this one to get its
// packets. One goroutine reads what it asks for, and one writes. Both end with
// the connection.
type peer struct {
	mesh  *Mesh
	id    string
	from  string // its address
	life  uint64
	max   int // bytes of the largest packet that it accepts
	since time.Time

	before uint64 // the life whose connection this one has replaced, or 0; Mesh.mu guards it

	conn  *zmq4.Conn
	guard *zmtp.Guard
	wake  bell.Bell     // there is something to write
	gone  chan struct{} // closed by close
	wrote chan struct{} // closed when write has returned

	out *seal // the writer's own

	// The reader's own.
	in         *seal
	topics     map[topic]bool
	prefixes   int // of topics
	topicBytes int

	mu      sync.Mutex // guards the fields below
	chunks  []chunk    // to be written
	queued  int        // bytes of memory waiting, with what is being written
	packets int        // waiting, with those that are being written
	echoes  []uint64   // numbers to be sent back
	lost    bool       // the other side must be told that packets were not sent
	leaving bool       // nothing more is queued; write ends when everything is sent
	closed  bool
	dropped int64 // packets for which the other side was too slow, or that were too large for it
}

var errAsk = errors.New("zmqmesh: the replica asks for something unknown")

// ask handles what the other side asks for.
func (p *peer) ask(b []byte) error {
	if len(b) == 9 && b[0] == askEcho {
		return p.echo(binary.BigEndian.Uint64(b[1:]))
	}
	if len(b) < 2 || len(b) > maxTopic+2 || b[0] > askSubscribe {
		return errAsk
	}
	ask, t := b[0], parseTopic(b[1:])
	if p.topics[t] == (ask == askSubscribe) {
		return nil // nothing changes
	}
	step := 1
	if ask == askLeave {
		step = -1
	}
	p.topicBytes += step * (len(t.name) + topicCost)
	if t.prefix {
		p.prefixes += step
	}
	if ask == askLeave {
		delete(p.topics, t)
		p.mesh.leave(t, p)
		return nil
	}
	if len(p.topics) >= maxTopics || p.prefixes > maxPrefixes || p.topicBytes > maxTopicBytes {
		return fmt.Errorf("zmqmesh: the replica subscribes to more than %d channels or %d prefixes, or to names of more than %d bytes", maxTopics, maxPrefixes, maxTopicBytes)
	}
	p.topics[t] = true
	if t.prefix {
		p.mesh.wide.Add(t.name, p)
	} else {
		p.mesh.index.add(t.name, p)
	}
	return nil
}

// echo queues the answer to an askEcho. Everything asked for before it on this
// connection is done by now.
func (p *peer) echo(n uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.echoes) >= maxEchoes {
		return fmt.Errorf("zmqmesh: the replica asks for more than %d echoes and does not read them", maxEchoes)
	}
	p.echoes = append(p.echoes, n)
	p.wake.Ring()
	return nil
}

// leave has write send what is queued, and then end.
func (p *peer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
	p.wake.Ring()
}

// logRest logs what Close drops.
func (p *peer) logRest() {
	p.mu.Lock()
	left := p.packets
	p.mu.Unlock()
	if left > 0 {
		p.mesh.log.Warn("mesh: closed before a replica had taken all that was queued for it; the rest is dropped", "peer", p.id, "packets", left)
	}
}

// close ends the connection. What waits for a replica that is there, but takes
// nothing, is counted as dropped. What waits for one that has gone is not, even if
// it has gone without a word. Heartbeats come once a second, so that
// zmtp.StallTimeout is enough to tell the two apart.
func (p *peer) close(err error) {
	p.mu.Lock()
	if p.closed || p.leaving && err == nil {
		p.mu.Unlock()
		return // read will see the other side hang up
	}
	p.closed = true
	if errors.Is(err, zmtp.ErrStalled) {
		p.dropLocked(p.packets)
	}
	p.chunks, p.queued, p.packets = nil, 0, 0
	close(p.gone)
	p.mu.Unlock()
	p.guard.HangUp()
}
