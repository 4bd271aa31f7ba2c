// Package mesh defines how replicas pass messages to each other. A hub that is
// the only replica needs no mesh.
//
// Package zmqmesh links replicas directly, with ZeroMQ's protocol and no
// broker. Package redismesh goes over Redis pub/sub. A Mesh of your own must
// pass the conformance suite in package meshtest.
package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Mesh carries packets from one replica to all others that want them.
//
// All methods may be called concurrently. After Close, every method that
// returns an error returns [ErrClosed]. A mesh may lose packets if a link
// breaks or a peer is too slow, and reports that with [KindLost]; the hub then
// repairs channels with history from the Store. A mesh never delivers a packet
// twice, and never reorders the packets that one replica published on one
// channel.
type Mesh interface {
	// Publish sends a packet to the peers that want it: to those that have
	// subscribed to its channel, to all peers if p.Channel is empty, or to one
	// peer if p.To is set. It never waits for a peer. A peer that is too slow
	// loses packets, which the mesh counts. Publish sets Origin and Seq, and
	// does not keep p.Body.
	//
	// It fails if no peer can be reached because of this replica or of a
	// broker. It does not fail because a peer is away.
	Publish(ctx context.Context, p Packet) error

	// Subscribe asks all peers, including those that come later, for the
	// packets of a channel. Unsubscribe ends that. Neither waits for peers.
	// Both may be repeated; one Unsubscribe ends any number of Subscribes.
	// Packets may still arrive for a while after it.
	Subscribe(channel string) error
	Unsubscribe(channel string) error

	// Receive calls deliver for each packet from a peer, never for the
	// replica's own, until ctx ends or the mesh is closed. Packets of one
	// channel come one at a time. Packets of different channels may come from
	// several goroutines. deliver must not wait, and must not call Close, which
	// waits for it. deliver owns p.Body, and may overwrite it, only until it
	// returns; it copies what it keeps. Only one Receive may run. Packets that
	// arrive while none runs are lost.
	Receive(ctx context.Context, deliver func(Packet)) error

	// Status returns the mesh's state now. It is cheap and never waits.
	Status() Status

	// Close leaves the mesh and ends Receive. Before that, it sends what is
	// queued for peers that still accept it, for at most a few seconds. It
	// waits for a running deliver. A second Close returns nil.
	Close() error
}

// Discoverer is a Mesh whose replicas find each other through the hub's Store.
// The hub announces Address with each heartbeat. Every few seconds it calls
// SetPeers with the addresses that all living replicas announced. It does not
// call SetPeers while the Store is down, so that known peers are kept.
type Discoverer interface {
	Mesh
	// Address is where peers connect to. It is "" if it need not be announced.
	Address() string
	// SetPeers replaces the addresses to connect to, by replica id, without the
	// replica's own. It does not keep the map. A peer that is left out is not
	// dialled again, but a living link to it is kept.
	SetPeers(addresses map[string]string)
}

// AllSubscriber is a Mesh that can bring the packets of all channels, for
// listeners that do not know the names. It costs this replica the traffic of
// all channels.
type AllSubscriber interface {
	Mesh
	// SubscribeAll and UnsubscribeAll are Subscribe and Unsubscribe for every
	// channel, including later ones. Each packet still comes once.
	SubscribeAll() error
	UnsubscribeAll() error
}

// Limiter is a Mesh with a limit on packet bodies. A hub refuses to start if it
// would accept larger messages from publishers than its mesh accepts.
type Limiter interface {
	Mesh
	// MaxBody is the largest Packet.Body that Publish always accepts, if the
	// packet's other fields together have at most [MaxFieldBytes].
	MaxBody() int
}

// Identified is a Mesh that knows its replica's id. A hub refuses to start
// under another id: the others would see two replicas.
type Identified interface {
	Mesh
	ID() string
}

// MaxFieldBytes bounds the total of all fields of a hub's packet except the
// Body. Names, ids and headers are much shorter.
const MaxFieldBytes = 4 << 10

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("mesh: closed")

// ErrTwin is in Status.Err while another living replica has this one's id, as
// far as the mesh has heard from it within the last seconds.
var ErrTwin = errors.New("mesh: another replica has this one's id: each must have its own")

// Kind is the kind of a packet.
type Kind uint8

const (
	KindMessage  Kind = iota // a published message
	KindPresence             // a member joined or left; it has no position, so a lost one stays lost
	// KindControl is for hubs. Only they read its Header and Body.
	KindControl
	// KindLost is made by the receiving mesh itself and never sent. Packets of
	// Channel, or of all channels if it is empty, may have been lost up to now:
	// a link was down, a queue was full, or a subscription became active at a
	// peer only now. Origin is the peer, if the loss concerns only one.
	// KindLost comes after the loss: packets published after its delivery
	// arrive. If a link goes down and may never come back, one KindLost is
	// delivered soon. Another one, for packets published after that, is
	// delivered when the link is up again or given up.
	KindLost
)

// Packet is one message on its way between replicas. The mesh sets the fields
// that say so. The others arrive as they were published, by a replica that may
// run another version, so receivers check them, as a hub does.
type Packet struct {
	Kind    Kind
	Channel string // empty: to every peer
	To      string // the id of the only replica to receive it, or ""
	Header  string // UTF-8
	Body    json.RawMessage
	Epoch   string // empty if the channel keeps no history
	Offset  uint64
	Origin  string // the id of the replica that sent it; set by the mesh
	Seq     uint64 // rises with each packet that one run of its origin sends; set by the mesh
	Sender  string // the connection that must not receive it (no echo), or ""
}

// Status is a mesh's state.
type Status struct {
	// Err is what keeps this replica from its mesh: its listener failed, or the
	// broker is away; or it is [ErrTwin]. It is nil if only peers are away.
	Err   error
	Peers []Peer // sorted by ID; a broker counts as one peer
	// Dropped counts the packets that were not sent because a peer, or the
	// broker, was too slow: its queue was full, or it accepted nothing for so
	// long that it was given up. It also counts packets that were larger than
	// the peer accepts. It does not count packets that waited for a peer that
	// left, died, or was no longer heard from when it was given up, since such
	// a peer may have died silently. Until then, its queue may fill like any
	// other. Lost counts the KindLost packets that were delivered.
	Dropped, Lost int64
	// Refused counts connections that were refused: a wrong key, a protocol
	// error, too many at once.
	Refused int64
}

// Peer is another replica, or a broker, as this replica sees it.
type Peer struct {
	ID      string        // the replica's id; empty while it is unknown, and for a broker
	Address string        // the address dialled, or the one it came from
	Up      bool          // its packets and heartbeats arrive
	Since   time.Time     // when Up last changed
	RTT     time.Duration // of the last heartbeat; 0 before the first one
	Queued  int           // bytes waiting to be sent to it
	Dropped int64         // packets not sent because it was too slow; see Status
	Err     string        // why it is down, or ""
}
