package zmqmesh

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

// A link is a connection that this replica has made to another one, to get its
// packets. One goroutine reads and delivers, and one writes which channels are
// wanted. Both end with the connection.
type link struct {
	mesh    *Mesh
	id      string
	life    uint64
	before  uint64 // the life whose link this one has replaced, or 0
	address string
	owes    bool   // packets may have been lost with the link that this one has replaced
	floor   uint64 // packets up to this Seq came over an earlier link

	conn  *zmq4.Conn
	guard *zmtp.Guard
	wake  bell.Bell     // pending has changed
	gone  chan struct{} // closed by close
	done  chan struct{} // closed when both goroutines have ended

	// The writer's own.
	out    *seal
	frames [1][]byte

	// The reader's own.
	in          *seal
	top         uint64 // the highest Seq that has come
	packet.Kept        // headers and epochs that have come
	wanted      bool   // this replica wants the channel of the packet being read

	mu      sync.Mutex     // guards the fields below
	pending map[topic]bool // to subscribe to, or to leave
	waiting []echo
	asked   uint64    // how many echoes
	up      time.Time // zero until the first echo
	rtt     time.Duration
	closed  bool
	err     error // why it is closed
}

// want queues a change. The last change of a topic counts.
func (l *link) want(t topic, subscribe bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.pending == nil {
		l.pending = make(map[topic]bool)
	}
	l.pending[t] = subscribe
	l.wake.Ring()
}

var (
	errBye       = errors.New("zmqmesh: the replica has left")
	errMalformed = errors.New("zmqmesh: the replica sent something that the mesh's protocol does not have")
)

// readAll hands each message to take until one of them fails or the connection
// ends. The next one overwrites it.
func readAll(g *zmtp.Guard, in *seal, take func([]byte) error) error {
	for {
		b, err := g.Message()
		if err != nil {
			return err
		}
		b, err = in.open(b)
		if err == nil {
			err = take(b)
		}
		if err != nil {
			return err
		}
	}
}

// hear delivers a message of the other replica.
func (l *link) hear(b []byte) error {
	switch {
	case len(b) > 1 && b[0] == sendPackets:
		return l.packets(b[1:])
	case len(b) == 9 && b[0] == sendEcho:
		return l.answer(binary.BigEndian.Uint64(b[1:]))
	case len(b) == 1 && b[0] == sendLost:
		l.mesh.inbox.Lost("", l.id)
		return nil
	case len(b) == 1 && b[0] == sendBye:
		return errBye
	}
	return errMalformed
}

// packets delivers the packets of a message.
func (l *link) packets(b []byte) error {
	var p mesh.Packet // one for all, since it is large
	for len(b) > 0 {
		rest, err := packet.Next(&p, b, l)
		if err != nil || len(p.Channel) > maxTopic {
			return errMalformed
		}
		b = rest
		l.take(&p)
	}
	return nil
}

// Channel is for packet.Next. It also notes whether the channel is wanted.
func (l *link) Channel(name []byte) string {
	var channel string
	if channel, l.wanted = l.mesh.topics.find(name); l.wanted {
		return channel
	}
	channel = string(name)
	l.wanted = l.mesh.begins.Has(channel)
	return channel
}

// take delivers a packet if this replica wants it.
func (l *link) take(p *mesh.Packet) {
	if p.Seq <= l.floor {
		return
	}
	l.top = max(l.top, p.Seq)
	p.Origin = l.id
	switch {
	case p.To == l.mesh.opts.ReplicaID:
	case p.To != "", p.Channel != "" && !l.wanted:
		return
	}
	l.mesh.inbox.Deliver(p)
}

// close ends the connection.
func (l *link) close(err error) {
	l.mu.Lock()
	if !l.closed {
		l.closed, l.err = true, err
		close(l.gone)
	}
	l.mu.Unlock()
	l.guard.HangUp()
}
