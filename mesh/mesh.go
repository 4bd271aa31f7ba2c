// Package mesh defines how a hub's replicas pass messages to each other.
// Where one process is enough, a hub has no mesh.
package mesh

import (
	"context"
	"encoding/json"
	"errors"
)

// Mesh carries packets from one replica to all others that want them.
//
// Every method may be called by many goroutines at the same time and returns
// [ErrClosed] after Close. A mesh may lose, repeat or reorder packets when a
// link breaks; the hub repairs channels with history from the Store.
type Mesh interface {
	// Publish hands a packet to every peer that has subscribed to its
	// channel. It never waits for a peer; a peer that is too slow loses
	// packets, which the mesh counts. It does not keep p.Body.
	Publish(ctx context.Context, p Packet) error

	// Subscribe asks all peers for the packets of a channel, Unsubscribe
	// ends it. Neither waits for peers. Both may be repeated.
	Subscribe(channel string) error
	Unsubscribe(channel string) error

	// Receive calls deliver for each packet that arrives from a peer, never
	// for the replica's own, until ctx ends or the mesh is closed. The
	// packets of one origin come one at a time, in the order of arrival.
	// deliver owns the packet and must not wait. Only one Receive may run.
	Receive(ctx context.Context, deliver func(Packet)) error

	// Close leaves the mesh and ends Receive. A second Close returns nil.
	Close() error
}

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("mesh: closed")

// Kind says what a packet is.
type Kind uint8

const (
	KindMessage  Kind = iota // a published message
	KindPresence             // somebody joined or left; the packet has no position
)

// Packet is one message on its way between replicas.
type Packet struct {
	Kind    Kind
	Channel string
	Header  string
	Body    json.RawMessage
	Epoch   string // empty where the channel keeps no history
	Offset  uint64
	Origin  string // the id of the replica that sent it
	Seq     uint64 // counts the packets of one origin, from 1
	Sender  string // the connection that is not to get it (no echo), or ""
	Trace   string // W3C traceparent of the publish, or ""
}
