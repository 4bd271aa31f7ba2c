// Package redismesh passes messages between replicas over Redis pub/sub, so
// that replicas need no port that others can reach. It needs Redis 6.2 or
// later, or Valkey: one server, a master behind Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	m, err := redismesh.New(client, redismesh.Options{Prefix: "myapp", ReplicaID: id})
//	hub, err := channels.New(channels.Options{Store: st, Mesh: m})
//
// Close the mesh after the hub's Shutdown, and the client after the mesh.
// Package redisstore may use the same client.
//
// # This one or zmqmesh
//
// Choose this mesh if you run Redis anyway, or if replicas cannot reach each
// other. Each message goes through Redis, so every replica depends on it. While
// Redis is down, publishing on channels without history fails. One Redis server
// limits the throughput of all. Package zmqmesh goes from replica to replica.
// It is faster, and channels without history need no server.
//
// # What it promises
//
// The mesh keeps the promises of [mesh.Mesh]. Redis keeps nothing for an absent
// subscriber, so a replica without a connection misses what is published
// meanwhile. The replica knows that: when its subscriptions are active again,
// it delivers a [mesh.KindLost], and the hub reads the missing messages from
// the Store. The same happens if a publisher's queue was full, and if a
// publisher gets another connection, since its peers may listen at another
// server than the one that it published on.
//
// Each frame names the frame before it on its channel. So a frame that Redis
// did not deliver is noticed with the next one, even if the subscriber has
// reconnected since. Both sides remember a bounded number of frames:
//
//   - A subscriber remembers at least the last 512 publishers of a channel;
//     each restart counts as another publisher. If a forgotten publisher comes
//     back, something may be lost, and the subscriber gets a KindLost.
//   - A publisher remembers its last frame on at least the last 262,144
//     channels, on a Cluster on 32,768 for each lane. Beyond that it marks the
//     frame as forgotten. The receiver of such a frame gets a KindLost for all
//     channels, at most once in 10 s for each publisher.
//
// The first frame that a subscriber gets from a publisher on a channel tells
// nothing about earlier ones.
//
// A replica that has SubscribePrefix called tells the others, at once and every 3
// s. They send it a copy of each frame on such a channel. Of more than 256 prefixes
// it tells shorter ones, gets more than it wants, and drops that. PSUBSCRIBE would
// not do: it does not get what SPUBLISH sends, and would need other rights.
//
// Publish queues packets. One goroutine publishes all that have gathered, in
// one pipeline, with the packets of one channel in one PUBLISH. The queue holds
// at most 65,536 packets and 64 MiB, and one body beyond that; on a Cluster, a
// quarter of it for each of the 16 lanes. Packets that do not fit are dropped
// and counted, and the peers get a KindLost. If Redis does not answer, Publish
// fails until it does. Packets queued before are sent if Redis is back within
// 10 s. Receivers drop a frame that they get a second time.
//
// # Which server
//
// The mesh takes the settings of the client given to New, including its Dialer
// and OnConnect, and makes connections of its own: one to publish and one to
// subscribe, on a Cluster for each lane. The client's hooks do not see them,
// and they do not count in its pool.
//
// After a failover, an old connection may lead to a server that is a replica
// now. PUBLISH succeeds there but does not reach subscribers at the master. So
// each new connection asks for the server's role with HELLO. The publishing
// connection asks again once a second, with the probe. The mesh leaves a
// replica. As long as the client leads to no other server, Publish fails and
// Status.Err tells why. The subscriptions move to the server that this replica
// publishes on. On a Cluster, the mesh checks once a second which server the
// client has for the slot; behind Sentinel, every 2 s which master Sentinel
// names. Messages published in between may be lost; a KindLost tells. If a
// proxy answers HELLO with an error, the role is unknown.
//
// # What waits, and for how long
//
// A TCP connection may look alive when nothing comes through it any more. So
// each replica publishes a probe to itself every second, even while it cannot
// subscribe or publish. Each wait has a bound and a next step:
//
//	what waits                  for                       at most               then
//	a new connection            Sentinel, the Cluster's   10 s, even if the     the next try, after
//	                            state, Dialer             Dialer ignores ctx    0.05 to 2 s
//	its handshake               each answer               ReadTimeout           the same
//	a subscription              its confirmation          10 s if nothing       a new connection
//	                                                      comes, else 15 s
//	a probe that Redis          its way back              3 s if nothing        a new connection
//	accepted                                              comes, else 15 s
//	a link that is up           anything at all           30 s                  a new connection
//	sending subscriptions       the socket                WriteTimeout          a new connection
//	a pipeline                  the socket, the answers   WriteTimeout, then    resent for 10 s on
//	                                                      ReadTimeout, each     new connections, then
//	                                                      plus 0.5 s per MiB    dropped with a KindLost
//	a Cluster's lane            whether it is sharded     10 s                  the next try; Publish
//	                                                                            fails
//	Publish, Subscribe,         locks that are held       no input or output    -
//	Status                      briefly
//	Receive, Close, a reader    a running deliver         deliver must not      Close goes on after
//	                                                      wait                  2 s
//	Close                       what is queued            2 s                   it is dropped, and
//	                                                                            the log says so
//	Close                       goroutines that wait      2 s                   they end by the
//	                            for Redis                                       bounds above
//
// ReadTimeout and WriteTimeout are the client's; if they are off, they are 5 s.
// While deliver runs, the reader's own bounds are suspended.
//
// # Names
//
// {18} is part of the names. It is the lane; with a single server there is only
// one.
//
//	channels:mesh:{18}:c:CHANNEL  the packets of a channel. A replica subscribes
//	                              to those that have subscribers on it
//	channels:mesh:{18}:all        packets to every replica, and news of losses
//	                              and of wanted prefixes
//	channels:mesh:{18}:n:NODE     packets to one replica, its probes, and copies
//	                              for the prefixes that it wants
//
// They are not keys, and nothing is stored. Pub/sub ignores databases (SELECT).
// If the client has another database than 0, its number becomes part of the
// names, as in channels:mesh:1:{18}:all. Options.Prefix, here "channels",
// separates apps that share a database.
//
// On a Cluster there are 16 lanes, spread evenly over the slots. Each channel
// belongs to one of them, and each replica has connections for each lane. If
// the servers have sharded pub/sub (Redis 7, Valkey), SPUBLISH and SSUBSCRIBE
// keep a lane's packets on the servers that have its slot. Otherwise each
// server sends all packets to all others. Each new connection checks this
// again, so an upgrade of the servers needs no restart of the replicas.
//
// # Redis
//
// Redis closes the connection of a subscriber that is too slow, according to
// client-output-buffer-limit. The default for pubsub, "32mb 8mb 60", lets 8 MB
// wait for a minute, and never more than 32 MB. A single body beyond that would
// reach no subscriber. It would cost each of them its connection, and the other
// messages of that moment. So Publish refuses bodies above
// Options.MaxBodyBytes, 24 MiB by default: Redis counts blocks of its memory,
// which are up to a quarter larger. If bodies or bursts are larger, first raise
// Redis's limit to at least 1.5 times the largest body. "0 0 0" would let one
// stopped replica fill the server's memory. Several bodies of many MiB in a row
// may still exceed the limit; a KindLost tells.
//
// A user in Redis's ACLs needs the pub/sub channels "&PREFIX:mesh:*", the
// commands PUBLISH, SUBSCRIBE and UNSUBSCRIBE, on a Cluster SPUBLISH,
// SSUBSCRIBE, SUNSUBSCRIBE, COMMAND and CLUSTER, and those of the client itself
// (HELLO, CLIENT). Without HELLO, the mesh cannot tell a replica from a master.
// Whoever may publish on these names may forge messages: keep other users from
// them.
//
// The client's ReadTimeout and WriteTimeout bound how long it takes to notice
// that a server hangs. 1 or 2 s suit better than the default of 5 s. The mesh
// trusts Redis to send values of a sane size (proto-max-bulk-len), but checks
// what they hold.
package redismesh
