// Package redismesh passes messages between replicas over Redis pub/sub, so
// that no replica has a port that the others must reach. It needs Redis 6.2 or
// later, or Valkey: one server, a master behind Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	m, err := redismesh.New(client, redismesh.Options{Prefix: "myapp", Node: id})
//	hub, err := channels.New(channels.Options{ReplicaID: id, Store: st, Mesh: m})
//
// Close the mesh after the hub's Shutdown, and the client after the mesh. The
// client may be that of package redisstore.
//
// # This one or zmqmesh
//
// Take this one where a Redis is there anyway, or where replicas cannot reach
// each other. Each message goes through Redis, which then is what everybody
// depends on: while it is away, publishing on channels without history fails,
// and one Redis server is the limit of all. Package zmqmesh goes from replica to
// replica: it is faster, and its channels without history need no server.
//
// # What it promises
//
// What [mesh.Mesh] promises. Redis keeps nothing for a subscriber that is away,
// so what is published while a replica has no connection does not reach it. The
// replica knows: when its subscriptions are active again it delivers a
// [mesh.KindLost], and the hub reads from the Store what is missing. The same
// where a publisher's queue was full, and where a publisher has another
// connection than before: the peers may listen at another server than it spoke to.
//
// Each frame names the one before it on its channel, so that one that Redis did
// not bring is noticed with the next, also when the subscriber has reconnected
// since. Both sides remember that within bounds. A subscriber follows at least
// the last 512 publishers of a channel, each restart being one more; one that
// comes back after it was forgotten may have lost something, and a KindLost says
// so. A publisher knows its last frame on at least the last 262,144 channels, on
// a Cluster 32,768 of each lane. Beyond that, it says that it has forgotten, and
// who gets such a frame is told of a possible loss, for all channels at once and
// at most once in 10 s for each publisher. The first frame that a subscriber gets
// of a publisher on a channel tells nothing of those before it.
//
// Publish queues, and one goroutine publishes what has gathered, in one
// pipeline, with packets of one channel in one PUBLISH. At most 65,536 packets
// and 64 MiB wait (a quarter of it in each of a Cluster's 16 lanes), and one body
// beyond; what does not fit is dropped, counted, and told to the peers. When
// Redis does not answer, Publish fails until it does; what was queued before is
// sent if it is back within 10 s. What is repeated then is dropped by who has it.
//
// # Which server
//
// The mesh takes the settings of the client that New was given, its Dialer and
// OnConnect included, and makes connections of its own with them: one to publish
// and one to subscribe, on a Cluster for each lane. Hooks of the client do not see
// them, and they are not of its pool.
//
// After a failover, an old connection may lead to a server that is a replica now.
// PUBLISH succeeds there and reaches nobody who listens at the master. So each
// connection asks with HELLO for the server's role when it is made, and the one
// to publish again with the probe, once a second. A replica is left, and as long
// as the client leads to no other server, Publish fails and Status says why. The
// subscriptions follow to where this replica publishes. On a Cluster, the client's
// view of who has the slot is looked at once a second; behind Sentinel, who it
// names every 2 s. What was published in between may be lost, and is told. Where
// a proxy does not answer HELLO, the role is not known.
//
// # What waits, and for how long
//
// A TCP connection may look alive when nothing comes through it any more. So each
// replica publishes a probe to itself every second, also while it cannot
// subscribe or publish, and each wait has a bound and a next try:
//
//	what waits                  for                       at most               then
//	a new connection            Sentinel, the Cluster's   10 s, also where the  the next try, after
//	                            state, Dialer             Dialer heeds no ctx   0.05 to 2 s
//	its handshake               each answer               ReadTimeout           the same
//	a subscription              its confirmation          10 s where nothing    a new connection
//	                                                      comes, else 15 s
//	a probe that Redis has      its way back              3 s where nothing     a new connection
//	taken                                                 comes, else 15 s
//	a link that is up           anything at all           30 s                  a new connection
//	sending subscriptions       the socket                WriteTimeout          a new connection
//	a pipeline                  the socket, the answers   WriteTimeout, then    repeated for 10 s on
//	                                                      ReadTimeout, each     new connections, then
//	                                                      and 0.5 s for a MiB   dropped and told
//	a Cluster's lane            whether it is sharded     10 s                  the next try; Publish
//	                                                                            fails
//	who calls Publish,          locks, under which        no input or output    -
//	Subscribe, Status           nobody waits
//	Receive, Close, a reader    a deliver that runs       deliver must not      Close goes on after
//	                                                      wait                  2 s
//	Close                       what is queued            2 s                   it is dropped
//	Close                       goroutines at Redis       2 s                   they end by the
//	                                                                            bounds above
//
// ReadTimeout and WriteTimeout are the client's; where they are off, 5 s count.
// While deliver runs, the reader's own bounds rest.
//
// # Names
//
// {18} is part of the names: a lane, of which one server has only one.
//
//	channels:mesh:{18}:c:CHANNEL  the packets of a channel. A replica subscribes
//	                              to those that have subscribers on it
//	channels:mesh:{18}:all        packets for everybody, and news of losses
//	channels:mesh:{18}:n:NODE     packets for one replica, and its probes
//
// They are no keys, and nothing is stored. Pub/sub knows no databases (SELECT), so
// where the client has another one than 0, its number is part of the names, as in
// channels:mesh:1:{18}:all. Options.Prefix, here "channels", keeps apps apart that
// share a database.
//
// On a Cluster there are 16 lanes, spread evenly over the slots, and a channel
// belongs to one of them. Each replica has a connection for each lane. Where the
// server has sharded pub/sub (Redis 7, Valkey), SPUBLISH and SSUBSCRIBE keep a
// lane's packets on the servers that have its slot; where it has not, each
// server sends all packets to all others. That is found out anew with each
// connection, so an upgrade of the servers needs no restart of the replicas.
//
// # Redis
//
// Redis ends the connection of a subscriber that is too slow, by
// client-output-buffer-limit: the default for pubsub, "32mb 8mb 60", lets 8 MB
// wait for a minute, and never more than 32 MB. A single body beyond that would
// reach nobody and cost each subscriber its connection, and what others published
// at that moment. So Publish refuses bodies above Options.MaxBodyBytes, 24 MiB if
// nothing else is said: Redis counts blocks of its memory, which are up to a
// quarter larger. Where bodies are larger, or bursts, set Redis's limit first, to
// at least 1.5 times the largest body; "0 0 0" would let one stopped replica fill
// the server's memory. Bodies of many MiB in a row may still go beyond the limit,
// which is told.
//
// A user of Redis's ACLs needs the pub/sub channels "&PREFIX:mesh:*", the commands
// PUBLISH, SUBSCRIBE and UNSUBSCRIBE, on a Cluster SPUBLISH, SSUBSCRIBE,
// SUNSUBSCRIBE, COMMAND and CLUSTER, and those of the client itself (HELLO,
// CLIENT). Without HELLO, a replica is not told from a master. Whoever may publish on these names may forge messages: keep other
// users from them.
//
// The client's ReadTimeout and WriteTimeout bound how long it takes to notice
// that a server hangs; 1 or 2 s suit better than the default, which is 5 s. What
// Redis sends is trusted to be of a sane size (proto-max-bulk-len), and not
// trusted otherwise.
package redismesh
