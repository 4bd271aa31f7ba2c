// Package mesh defines how the replicas of an app pass messages to each other. A
// replica is one process of the app, with a hub. If there is only one, its hub
// needs no mesh.
//
// Package zmqmesh links replicas directly, with ZeroMQ's protocol and no broker.
// Package redismesh goes over Redis pub/sub. To prove a Mesh of your own, run the
// conformance suite in package meshtest.
package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// A Mesh carries packets from one replica to all others that want them. All its
// methods may be called concurrently. After Close, those that return an error
// return [ErrClosed].
//
// A mesh may lose packets if a link breaks or a replica is too slow. It says so
// with [KindLost], and the hub then repairs channels with history from the Store.
// It never repeats a packet, and never changes the order of packets that one
// replica has published on one channel.
type Mesh interface {
	// Publish hands a packet to the replicas that have subscribed to its channel;
	// if p.Channel is empty, to all; if p.To is set, to that one alone. It never
	// waits for a replica: one that is too slow loses packets, which the mesh
	// counts. It sets Origin and Seq, and does not keep p.Body, p.Info and p.Trace.
	//
	// It fails if no replica can be reached because of this one or of a broker.
	// That another replica is away is not an error.
	Publish(ctx context.Context, p Packet) error

	// Subscribe asks all replicas, also those that come later, for the packets
	// of a channel. Unsubscribe ends that; packets may go on arriving for a
	// while. Neither waits for a replica. Both may be repeated, and one
	// Unsubscribe ends any number of Subscribes.
	Subscribe(channel string) error
	Unsubscribe(channel string) error

	// SubscribePrefix asks all replicas, also those that come later, for the packets
	// of every channel whose name begins with prefix; an empty prefix stands for all
	// channels. UnsubscribePrefix ends that. They are otherwise like Subscribe and
	// Unsubscribe. But no KindLost need say when they have become active, nor what
	// is lost of a channel that only a prefix asks for. A packet that is wanted in
	// several ways comes once.
	SubscribePrefix(prefix string) error
	UnsubscribePrefix(prefix string) error

	// Receive calls deliver for each packet that arrives from another replica,
	// until ctx ends or the mesh is closed. Packets of one channel come one at a
	// time; those of different channels may come from several goroutines.
	// deliver must not wait, nor call Close, which waits for it. It owns p.Body,
	// p.Info and p.Trace, and may overwrite them, until it returns: it must copy
	// what it keeps. Only one Receive may run; what arrives while none does is lost.
	Receive(ctx context.Context, deliver func(Packet)) error

	// Status returns the present state. It is cheap and never waits.
	Status() Status

	// Close leaves the mesh and ends Receive. Before, it sends what is queued, to
	// replicas that take it, for a few seconds at most. It waits for a deliver
	// that is under way. A second Close returns nil.
	Close() error
}

// A Discoverer is a Mesh whose replicas find each other through the hub's Store:
// the hub announces Address with each heartbeat, and calls SetPeers every few
// seconds with what all living replicas have announced. While the Store is down,
// it does not call SetPeers, so that the known replicas are kept.
type Discoverer interface {
	Mesh
	// Address is where other replicas connect to. An empty address is not
	// announced.
	Address() string
	// SetPeers replaces the addresses to connect to, by replica id, without this
	// replica's own. It does not keep the map. A replica that is left out is not
	// dialled again, but a link that lives is kept.
	SetPeers(addresses map[string]string)
}

// A Limiter is a Mesh that bounds packets. Its hub refuses to start if it would
// accept larger messages than the mesh does.
type Limiter interface {
	Mesh
	// MaxBody is the largest Packet.Body that Publish always accepts, if the
	// other fields have at most [MaxFieldBytes] together.
	MaxBody() int
}

// An Identified is a Mesh that knows the id of its replica. A hub that was given
// no id takes this one. A hub that was given another id refuses to start, because
// other replicas would see two.
type Identified interface {
	Mesh
	// ReplicaID is 1 to 64 of A-Z, a-z, 0-9, "-", "_" and ".", and never changes.
	ReplicaID() string
}

// MaxFieldBytes bounds all fields of a hub's packet together, except the Body.
// Names, ids, the header of a message and its publisher are shorter.
const MaxFieldBytes = 5 << 10

// MaxTraceBytes bounds a packet's Trace, which is among these fields.
const MaxTraceBytes = 1 << 10

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("mesh: closed")

// ErrTwin is in Status.Err if the mesh has met another living replica with this
// one's id within the last seconds.
var ErrTwin = errors.New("mesh: another replica has this one's id; each must have its own")

// Kind is the kind of a packet.
type Kind uint8

const (
	KindMessage  Kind = iota // a published message
	KindPresence             // somebody joined or left; it has no position, so a lost one stays lost
	KindControl              // only the hubs read its Header and Body
	// KindAgain is a message with a position that may have been published before,
	// because its publisher repeats it. Those who put messages in order take it for a
	// KindMessage that comes twice; those who do not ignore it.
	KindAgain
	// KindLost is never sent: the receiving mesh makes it. It says that packets of
	// Channel (of all channels if that is empty) may have been lost, because a
	// link was down, a queue was full, or a subscription has only now become
	// active at another replica. Origin is that replica, or empty.
	//
	// A KindLost comes after the loss: packets published after it was delivered
	// arrive. If a link is down and may never come back, a KindLost says so soon.
	// Another one follows when the link is up again or given up, for what was
	// published meanwhile.
	KindLost
)

// A Packet is one message on its way between replicas. The mesh sets Origin and
// Seq. All other fields arrive as another replica has published them, which may
// have another version, so the receiver must check them, as a hub does.
type Packet struct {
	Kind    Kind
	Channel string // empty: for every replica
	To      string // the id of the only replica that gets it, or ""
	Header  string // UTF-8
	Body    json.RawMessage
	Epoch   string // empty if the channel keeps no history
	Offset  uint64
	Origin  string // the id of the replica that sent it; set by the mesh
	Seq     uint64 // rises with each packet of one life of its origin; set by the mesh
	Sender  string // the connection that must not get it (no echo), or ""
	Info    []byte // the hub's own data about the message, which the mesh does not read; nil if there are none
	// Trace says which trace the publish belongs to. The mesh does not read it, and leaves
	// out one of more than MaxTraceBytes. It is nil if there is none.
	Trace []byte
}

// Status is the state of a mesh.
type Status struct {
	// Err is what keeps this replica from its mesh: its listener has failed, the
	// broker is away, or [ErrTwin]. It is nil if only other replicas are away.
	Err   error
	Peers []Peer // sorted by ID; a broker counts as one peer
	// Dropped counts the packets that were not sent to a peer because its queue
	// was full, because it took nothing for so long that it was given up, or
	// because they were too large for it. Packets that waited for a peer that
	// left or died do not count, nor those for a peer from which nothing was
	// heard any more when it was given up: it may have died without a word. Until
	// then, its queue may be full like any other's.
	//
	// Lost counts how often a KindLost was delivered.
	Dropped, Lost int64
	// Refused counts connections that were refused: a wrong key, a protocol
	// error, too many at once.
	Refused int64
}

// A Peer is the other end of this replica's links: another replica, or a broker.
type Peer struct {
	ID      string        // the replica's id; empty if it is not known yet, and for a broker
	Address string        // the address that is dialled, or that it came from
	Up      bool          // packets and heartbeats arrive from it
	Since   time.Time     // when it came up, or went down
	RTT     time.Duration // of the last heartbeat; 0 if there was none yet
	Queued  int           // bytes that wait to be sent to it
	Dropped int64         // packets that were not sent to it; see Status
	Err     string        // why it is down, or ""
}
