// Package zmqmesh links the replicas of an app directly, with ZeroMQ's
// protocol (ZMTP 3.0) over TCP and no broker:
//
//	m, err := zmqmesh.New(zmqmesh.Options{ID: node, Listen: "tcp://10.0.0.7:10021", Key: key})
//	hub, err := channels.New(channels.Options{Node: node, Mesh: m, Store: st})
//
// Replicas find each other through the hub's Store, or by Options.Peers or
// Options.DNS, with no Store at all.
//
// # How it works
//
// Each replica connects to each other one and tells it the channels that it
// wants; packets come back on that connection. So there are two connections
// between two replicas, one for each direction of packets, and a message goes
// only where somebody waits for it. A packet that nobody wants costs a look at
// a table (BenchmarkUnwanted: 40 ns). One that many want is encoded once.
//
// Packets for a peer wait in a queue that is bounded in bytes and in packets.
// Its writer takes all that has come and sends it in messages of up to 32 KiB,
// which are flushed when the queue is empty: under load many packets share a
// write, and without load none waits. A peer that takes nothing for 3 seconds
// is hung up on, and connects again by itself. What waited for it counts as
// dropped if it was heard in these seconds, as else it may have died.
//
// After its channels, a replica asks for an echo. When that comes back, all
// that it asked before is active, and the mesh delivers a KindLost: for the one
// channel, or for all of them where the link is new. The same echoes are the
// heartbeat, once a second; after 6 seconds of silence a link is given up, and
// tried again after 50 ms to 2 s. A channel is left 3 seconds after
// Unsubscribe, so that who comes back soon has missed nothing.
//
// Nothing is sent twice, and each replica takes only one connection of each
// other one at a time, so nothing arrives twice. A replica that is found at two
// addresses has one link; the other address is tried again when that ends.
//
// # Who may in
//
// Without TLS and Key, whoever reaches the port is a replica, which is why New
// then refuses to bind beyond loopback. Options.TLS has both sides prove
// themselves and encrypts; Options.Key only lets both prove that they know it.
// Listeners bound what strangers may cost: 64 of them may be shaking hands, for
// 5 seconds, with frames of 512 bytes.
//
// # ZeroMQ's sockets
//
// The links have ZMTP's frames and handshake, with a security mechanism of
// their own, CHANNELS, in which versions, ids and proofs of the key are
// exchanged. Sockets of other programs are turned away by their greeting, as
// what they would get are not single messages but many packets in one frame.
// They are welcome at a [Gateway], which has ports of its own.
//
// Of the library github.com/go-zeromq/zmq4 only the layer of connections is
// used: its sockets stall and panic where a peer misbehaves.
package zmqmesh
