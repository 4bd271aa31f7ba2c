// Package mesh defines how a hub's replicas pass messages to each other.
// Where one process is enough, a hub has no mesh.
//
// Package zmqmesh links replicas directly, with ZeroMQ's protocol and no
// broker; package redismesh goes over Redis pub/sub. A Mesh of your own passes
// the conformance suite in package meshtest.
package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Mesh carries packets from one replica to all others that want them.
//
// Every method may be called by many goroutines at the same time and returns
// [ErrClosed] after Close, where it returns an error. A mesh may lose packets
// when a link breaks or a peer is too slow, and says so with [KindLost]; the
// hub then repairs channels with history from the Store. It never repeats a
// packet, and never changes the order of those that one replica has published
// on one channel.
type Mesh interface {
	// Publish hands a packet to every peer that wants it: to the peers that
	// have subscribed to its channel, or where p.Channel is empty to all of
	// them, or where p.To is set to that one alone. It never waits for a
	// peer; a peer that is too slow loses packets, which the mesh counts. It
	// sets Origin and Seq, and does not keep p.Body.
	//
	// It fails where no peer can be reached because of this replica or of a
	// broker, not where a peer is away.
	Publish(ctx context.Context, p Packet) error

	// Subscribe asks all peers, those that come later too, for the packets
	// of a channel, Unsubscribe ends it. Neither waits for peers. Both may
	// be repeated; one Unsubscribe ends any number of Subscribes. Packets
	// may go on arriving for a while.
	Subscribe(channel string) error
	Unsubscribe(channel string) error

	// Receive calls deliver for each packet that arrives from a peer, never
	// for the replica's own, until ctx ends or the mesh is closed. Packets of
	// one channel come one at a time; those of different channels may come
	// from several goroutines. deliver must not wait, and not call Close, which
	// waits for it. p.Body is its own, to be overwritten too, only until it
	// returns: it copies what it keeps. Only one Receive may run; what arrives
	// while none does is lost.
	Receive(ctx context.Context, deliver func(Packet)) error

	// Status says how the mesh is at this moment. It is cheap and never waits.
	Status() Status

	// Close leaves the mesh and ends Receive. What is queued for peers that
	// take it is sent before, for at most a few seconds. It waits for a deliver
	// that is under way. A second Close returns nil.
	Close() error
}

// Discoverer is a Mesh whose replicas find each other through the hub's
// Store: the hub announces Address with each heartbeat, and calls SetPeers
// every few seconds with what all living replicas have announced. While the
// Store is down, it does not call it, so that known peers are kept.
type Discoverer interface {
	Mesh
	// Address is where peers connect to, or "" where it need not be announced.
	Address() string
	// SetPeers replaces the addresses to connect to, by replica id, without
	// the replica's own. It does not keep the map. A peer that is left out is
	// not dialled again, but a link that lives is kept.
	SetPeers(addresses map[string]string)
}

// AllSubscriber is a Mesh that can bring the packets of all channels, for who
// listens without knowing names. It costs this replica the traffic of all.
type AllSubscriber interface {
	Mesh
	// SubscribeAll and UnsubscribeAll are Subscribe and Unsubscribe for every
	// channel, those that come later too. Packets still come once each.
	SubscribeAll() error
	UnsubscribeAll() error
}

// Limiter is a Mesh that bounds packets. A hub with one refuses to start where
// it would take larger messages from its publishers than the mesh takes from it.
type Limiter interface {
	Mesh
	// MaxBody is the largest Packet.Body that Publish is sure to take, whatever
	// else is in the packet: its other fields may have [MaxFieldBytes] together.
	MaxBody() int
}

// Identified is a Mesh that knows its replica's id. A hub with one refuses to
// start under another name: the others would see two replicas.
type Identified interface {
	Mesh
	ID() string
}

// MaxFieldBytes bounds all fields of a hub's packet but the Body together:
// names, ids and the header of a message are much shorter.
const MaxFieldBytes = 4 << 10

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("mesh: closed")

// ErrTwin is in Status.Err while another living replica has this one's id, as
// far as the mesh has met it within the last seconds.
var ErrTwin = errors.New("mesh: another replica has this one's id: each must have its own")

// Kind says what a packet is.
type Kind uint8

const (
	KindMessage  Kind = iota // a published message
	KindPresence             // somebody joined or left; without a position, so that one that is lost stays lost
	// KindControl is between hubs, which alone read its Header and Body.
	KindControl
	// KindLost is made by the receiving mesh itself and is never sent: packets
	// of Channel, or of all channels where it is empty, may have been lost up
	// to now: a link was down, a queue was full, or a subscription has only
	// now become active at a peer. Origin is the peer, where one is meant.
	// It comes after the loss: what is published once it was delivered arrives.
	// Where a link is down and may never come back, there is one in time, and
	// another one for what is published later, when it is up or given up.
	KindLost
)

// Packet is one message on its way between replicas. A mesh sees to the fields
// that say so; the others arrive as they were published by a replica that may
// have another version, so who takes packets checks them, as a hub does.
type Packet struct {
	Kind    Kind
	Channel string // empty: for every peer
	To      string // the id of the only replica that gets it, or ""
	Header  string // UTF-8
	Body    json.RawMessage
	Epoch   string // empty where the channel keeps no history
	Offset  uint64
	Origin  string // the id of the replica that sent it; set by the mesh
	Seq     uint64 // rises with each packet of one life of its origin; set by the mesh
	Sender  string // the connection that is not to get it (no echo), or ""
}

// Status is how a mesh is.
type Status struct {
	// Err is what keeps this replica from its mesh: its listener has failed,
	// or the broker is away; or it is [ErrTwin]. nil where only peers are away.
	Err   error
	Peers []Peer // sorted by ID; a broker counts as one peer
	// Dropped counts the packets that were not sent because a peer, or the
	// broker, was too slow for them: its queue was full, or it took nothing for
	// so long that it was given up; or they were larger than what it takes. What
	// waited for a peer that has left or died is not counted, nor for one that
	// was not heard any more when it was given up: it may have died without a
	// word. Until then, its queue may be full as that of any other. Lost counts
	// the times that a KindLost was delivered.
	Dropped, Lost int64
	// Refused counts connections that were turned away: a wrong key, a
	// protocol error, too many at once.
	Refused int64
}

// Peer is another replica, or a broker, as this replica sees it.
type Peer struct {
	ID      string        // the replica's id; empty as long as it is unknown, and for a broker
	Address string        // what is dialled, or where it came from
	Up      bool          // packets arrive from it, and its heartbeats
	Since   time.Time     // of Up, or of being down
	RTT     time.Duration // of the last heartbeat; 0 where none has come yet
	Queued  int           // bytes that wait to be sent to it
	Dropped int64         // packets that it was too slow for; see Status
	Err     string        // why it is down, or ""
}
