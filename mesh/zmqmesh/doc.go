// Package zmqmesh links the replicas of an app directly, with ZeroMQ's
// protocol (ZMTP 3.0) over TCP and no broker:
//
//	m, err := zmqmesh.New(zmqmesh.Options{ID: node, Listen: "tcp://10.0.0.7:10021", Key: key})
//	hub, err := channels.New(channels.Options{ReplicaID: node, Mesh: m, Store: st})
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
// write, and without load none waits. A peer may be as slow as it likes while it
// takes something, as far as TCP lets that be seen. One that takes nothing for 3
// seconds is hung up on, and connects again by itself. What waited for it counts
// as dropped if it was heard in these seconds, as else it may have died.
//
// After its channels, a replica asks for an echo. When that comes back, all
// that it asked before is active, and the mesh delivers a KindLost: for the one
// channel, or for all of them where the link is new. The same echoes are the
// heartbeat, once a second; after 6 seconds of silence a link is given up, and
// tried again after 50 ms to 2 s. Where that does not succeed, a KindLost says
// that packets of the replica may be lost, unless it has said goodbye, and
// another one when it is linked again or given up. A channel is left 3 seconds after
// Unsubscribe, so that who comes back soon has missed nothing.
//
// Nothing is sent twice, and each replica takes only one connection of each
// other one at a time, so nothing arrives twice. A replica that is found at two
// addresses has one link; the other address is tried again when that ends.
//
// An address may come from several sources: Options.Peers, the DNS, the hub's
// Store. With TLS, a certificate for its host does, or for the name in the DNS
// if that gives the address.
//
// # What bounds each wait for a peer
//
//	waits                           for at most              and then
//	connecting, with TLS's hands    5 s                      again after 50 ms to 2 s
//	shaking hands, either side      5 s more                 the same; listeners count it
//	a link, for any byte            6 s (a beat each 1 s)    KindLost, again as above
//	a write, for any progress       3 s, or a quarter more   hung up; the peer comes again
//	what waits in a queue           QueueBytes, QueuePackets dropped, and the peer is told
//	answers to a link's questions   64 of them               beats without a question
//	a replica's own address         7.5 to 22.5 s            tried again: it may be another's
//	a second address of a replica   its link, or as above    tried again
//	the DNS                         5 s                      again each 5 s; known ones are kept
//	accepting, where that fails     5 ms to 1 s              again, and Status.Err says so
//	Close, for queues               Linger, 2 s              hung up
//
// Of a gateway:
//
//	a message, from its first byte  30 s, + 1 s per 64 KiB   hung up
//	room for a large one            the others' time: 1 s + 1 s per MiB; they end
//	a write, for any progress       3 s, or a quarter more   hung up; it connects again
//	a peer that is silent           TCP's keepalive          and it makes way for newcomers
//	a reader's answer to PING       90 s (one each 30 s)     hung up, unless something waits for it
//	the hub, for a message          the hub's own bounds     an answer that says so
//	Close, for readers              1 s                      hung up
//
// No lock is held while anything waits for a peer. A deliver that waits holds up
// its own link, and Close.
//
// What arrives is bounded as a whole, by MaxPacketBytes, and a channel's name by
// 512 bytes. Who sent it is who the handshake says. The other fields are taken
// as they come from a replica that has proved itself, for the hub to check.
//
// # Who may in
//
// Without TLS and Key, whoever reaches the port is a replica, which is why New
// then refuses to bind beyond loopback. Options.TLS has both sides prove
// themselves and encrypt; with Options.Key both prove that they know it, and seal
// each message: with AES-GCM, under keys that HKDF derives from Key and from both
// sides' nonces, one for each direction, and with the message's number, so that a
// link ends with the first message that is not as it was sent. It costs some 7 % of
// a bare link's rate (BenchmarkRaw: 325 ns a message, and 300 without), and up to
// 4 % of its delay (BenchmarkLatency).
//
// Listeners bound what strangers may cost: 512 of them may be shaking hands, for
// 5 seconds, with frames of 512 bytes. Where more come, one of the address that
// has the most makes way, by chance, so that neither one address nor a flood
// from many keeps replicas apart.
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
