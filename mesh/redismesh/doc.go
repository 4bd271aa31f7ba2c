// Package redismesh passes messages between replicas over Redis pub/sub, so
// that no replica has a port that the others must reach. It needs Redis 6.2 or
// later, or Valkey: one server, a master behind Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	m, err := redismesh.New(client, redismesh.Options{Prefix: "myapp", Node: id})
//	hub, err := channels.New(channels.Options{Node: id, Store: st, Mesh: m})
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
// where a publisher's queue was full, or where a frame is missing between two.
// That is followed for at least the last 512 publishers of a channel, each
// restart being one more; one that comes back after it was forgotten may have
// lost something, and a KindLost says so.
//
// A TCP connection may look alive when nothing comes through it any more. So each
// replica publishes a probe to itself every second. If Redis has taken one and
// it does not come back within 3 s, the connection is closed and opened anew.
//
// Publish queues, and one goroutine publishes what has gathered, in one
// pipeline, with packets of one channel in one PUBLISH. At most 65,536 packets
// and 64 MiB wait (a quarter of it in each of a Cluster's 16 lanes); what is
// beyond is dropped, counted, and told to the peers. When Redis does not answer,
// Publish fails until it does; what was queued before is sent if it is back
// within 10 s. What is repeated then is dropped by who has it.
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
// They are no keys, nothing is stored, and databases (SELECT) do not keep them
// apart; Options.Prefix, here "channels", does.
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
// wait for a minute. Where bursts are larger than that, set more; "0 0 0" would
// let one stopped replica fill the server's memory.
//
// A user of Redis's ACLs needs the pub/sub channels "&PREFIX:mesh:*", the commands
// PUBLISH, SUBSCRIBE and UNSUBSCRIBE, on a Cluster SPUBLISH, SSUBSCRIBE,
// SUNSUBSCRIBE, COMMAND and CLUSTER, and those of the client itself (HELLO,
// CLIENT). Whoever may publish on these names may forge messages: keep other
// users from them.
//
// The client's ReadTimeout and WriteTimeout bound how long it takes to notice
// that a server hangs; 1 or 2 s suit better than the default, which is 5 s. What
// Redis sends is trusted to be of a sane size (proto-max-bulk-len), and not
// trusted otherwise.
package redismesh
