// Package zmqmesh links the replicas of an app directly, with ZeroMQ's protocol
// (ZMTP 3.0) over TCP and no broker:
//
//	m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://10.0.0.7:10021", Key: key})
//	hub, err := channels.New(channels.Options{Mesh: m, Store: st})
//
// Replicas find each other through the hub's Store, or, with no Store at all,
// through Options.Peers or Options.DNS.
//
// # How it works
//
// Each replica connects to each other one and tells it which channels it wants, by
// their names or by what these begin with; packets come back on that connection. So
// there are two connections between two replicas, one for each direction of packets,
// and a message goes only where somebody waits for it. A packet that nobody wants costs
// a look at a table (BenchmarkUnwanted: 25 ns). One that many want is encoded once.
//
// Packets for a replica wait in a queue that is bounded in bytes and in packets.
// Its writer takes all that has come and sends it in messages of up to 32 KiB,
// and flushes when the queue is empty: under load many packets share a write,
// and without load none waits. A replica may be slow as long as it takes
// something (as far as TCP shows that). One that takes nothing for 3
// seconds is disconnected, and connects again by itself. What waited for it
// counts as dropped if something was heard from it in these seconds; otherwise
// it may have died.
//
// Once a replica has asked for its channels, it asks for an echo. When the echo
// comes back, everything that it asked for before is active, and the mesh
// delivers a KindLost: for the one channel, or for all of them if the link is
// new. The same echoes are the heartbeat, once a second. After 6 seconds of
// silence a link is given up, and tried again after 50 ms to 2 s. If that fails
// and the replica has not said goodbye, a KindLost says that its packets may be
// lost. A second KindLost follows when the replica is linked again, or given
// up. A channel is left 3 seconds after Unsubscribe, so that a subscriber who
// comes back soon has missed nothing.
//
// Nothing is sent twice, and each replica accepts only one connection of each
// other one at a time, so nothing arrives twice. A replica that is found at two
// addresses has one link; the other address is tried again when that ends.
//
// An address may come from several sources: Options.Peers, the DNS, the hub's
// Store. With TLS, a certificate for its host is accepted, or one for the name
// in the DNS if the DNS gives the address.
//
// # What bounds each wait
//
//	waits                           for at most              and then
//	connecting, with TLS handshake  5 s                      again after 50 ms to 2 s
//	shaking hands, either side      5 s more                 the same; listeners count it
//	a link, for any byte            6 s (a beat each 1 s)    KindLost, again as above
//	a write, for any progress       3 s, or a quarter more   disconnected; the replica comes again
//	what waits in a queue           QueueBytes, QueuePackets dropped, and the replica is told
//	answers to a link's questions   64 of them               beats without a question
//	a replica's own address         7.5 to 22.5 s            tried again: it may be another's
//	a second address of a replica   its link, or as above    tried again
//	the DNS                         5 s                      again each 5 s; known ones are kept
//	accepting, if that fails        5 ms to 1 s              again, and Status.Err says so
//	Close, for queues               Linger, 2 s              disconnected, and logged
//
// No lock is held while anything waits for another replica. Packets of one channel are
// delivered one at a time, whichever link brings them; several channels share such a
// turn (mesh/internal/inbox). A deliver that waits holds up its own link, every link
// that brings a packet of the same turn, and Close.
//
// An arriving packet is bounded as a whole, by MaxPacketBytes, and a channel's
// name by 512 bytes. Its Origin is the replica that the handshake has proved. The
// other fields are delivered as they came, for the hub to check.
//
// # Who may join
//
// Without TLS and Key, whoever reaches the port is a replica, which is why New
// then refuses to bind beyond loopback. With Options.TLS both sides prove
// themselves and encrypt. With Options.Key both prove that they know it, and seal
// each message: with AES-GCM, under keys that HKDF derives from Key and from both
// sides' nonces, one key for each direction, and with the message's number, so
// that a link ends with the first message that is not as it was sent. That costs
// some 5 % of a bare link's rate (BenchmarkRaw: 169 ns a message, and 161
// without) and of its delay (BenchmarkLatency).
//
// Listeners bound what strangers may cost: 512 of them may be shaking hands, for
// 5 seconds, with frames of 512 bytes. If more come, a random one from the
// address that has the most makes way, so that neither one address nor a flood
// from many keeps replicas apart.
//
// # Where to look
//
//	how a packet leaves            publish.go encodes it (mesh/internal/packet) and finds who wants
//	                               it (index.go), queue.go queues, seals (seal.go) and sends it
//	how a packet arrives           dial.go runs the reader; link.go reads, through internal/zmtp
//	                               (message.go, guard.go, timed.go), opens the seal and takes it, topics.go says whether it is wanted,
//	                               mesh/internal/inbox delivers it
//	how channels are asked for     topics.go on this side, heartbeat.go on the way, peer.go on the
//	                               other; protocol.go has what the two sides say
//	how a dead replica is noticed  heartbeat.go asks, internal/zmtp gives up a silent link,
//	                               loss.go tells the hub, dial.go connects again; the other
//	                               half of the link is peer.go, which drops what waits for it,
//	                               and peers.go, which takes it out of the index;
//	                               status.go shows it
//	how the mesh closes            mesh.go; peer.go and queue.go send what waits, and a bye, which
//	                               tells link.go and loss.go of each other replica that nothing
//	                               is lost. Then dial.go hangs up this replica's own links, and
//	                               peers.go of the others takes it out of their index. The others
//	                               go on dialling (dial.go) until no source names its address
//	                               (addresses.go)
//	where addresses come from      addresses.go; those of the Store come from the hub, by SetPeers
//	who is let in                  handshake.go and seal.go, links.go (dialling), peers.go (listening);
//	                               twins.go finds two replicas with one id
//
// # ZeroMQ's sockets
//
// The links have ZMTP's frames and handshake, with a security mechanism of their
// own, CHANNELS, in which versions, ids and proofs of the key are exchanged.
// Sockets of other programs are turned away by their greeting, because what they
// would get is not single messages but many packets in one frame. Such programs
// connect to the gateway of package zmqgateway, which has ports of its own.
//
// Of the library github.com/go-zeromq/zmq4 only the layer of connections is
// used: its sockets stall and panic if a peer misbehaves.
package zmqmesh
