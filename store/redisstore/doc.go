// Package redisstore keeps history, the numbers of replicas and presence in
// Redis, so that several replicas of an app share them. It needs Redis 6.2 or
// later, or Valkey: one server, a master behind Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	st, err := redisstore.New(client, redisstore.Options{Prefix: "myapp"})
//	hub, err := channels.New(channels.Options{Store: st})
//
// # What it promises
//
// What Append has acknowledged is in the log of the Redis server that answered.
// Whether it outlives that server is Redis's matter: with "appendfsync always"
// it does; with "everysec", or where a replica takes over, the last moment may
// be lost. A log that is lost as a whole (a restart without persistence,
// eviction, FLUSHALL) begins anew under another epoch.
//
// No position ever means two messages. A server's data has one life, which Redis
// names in the master_replid of INFO replication: it is another one after each
// restart and each promotion of a replica, on the new master and, when it is
// promoted again, on the old one. Each log has noted the life it was appended to
// last. Where the next Append, by whichever process, meets another life, the log
// goes on at the next offset under another epoch, and store.Page.Earlier says up
// to where the epochs before are the same: a subscriber goes on from there, and
// misses and repeats nothing that Redis has. Lives also change where nothing is
// lost (a first replica comes, the last has gone for an hour, a Cluster moves a
// slot): then the epochs before are the same up to their ends. Reading changes
// nothing: between a loss and the next Append, Range and Tops show the lower top
// under the epoch before. A server that is the master no longer refuses both.
//
// What cannot be seen: older data that is put into a server that lives on, by
// RESTORE, DEBUG RELOAD or a snapshot of the machine's memory. Remove the logs
// then (the keys "PREFIX:top:*"), so that they begin anew.
//
// # The keys
//
// All names begin with the prefix; {c} is a channel and {n} a replica, in which
// "%" and "}" are written as "%25" and "%7D". The braces are part of the names:
// a Cluster keeps what has the same text in them in one place.
//
//	key                       type        what it holds                                written by               it ends
//	channels:log:{c}          stream      entries: id <offset>-<milliseconds since     Append                   HistoryTTL after the last Append
//	                                      1970>, fields header, body and call
//	                                      (an id of the Append)
//	channels:top:{c}          string      the epoch, the epoch at birth, the last      Append, Tops             25 h (HistoryTTL, where longer) after
//	                                      offset, HistoryTTL in ms, times of the                                the last Append; Tops makes it 36 h
//	                                      last and of the oldest entry, when it ends,                           where less than 24 h are left
//	                                      the first 20 digits of the server's
//	                                      master_replid, the earlier epochs
//	                                      ("epoch:offset,…" or "-"), and the Appends
//	                                      of the last minute that were repeated
//	                                      ("call:offset:milliseconds,…")
//	channels:once:{c}:KEY     string      the epoch at birth, the offset that an       Append with a key        KeyTTL after its first use
//	                                      idempotency key got, the id of the Append,
//	                                      the digest of its message
//	channels:nodes:{nodes}    sorted set  replicas, by the second of their last        Report of any replica    2 min after the last Report; a member
//	                                      report: who to ask                                                    after 1 min of silence
//	channels:card:{n}         hash        started, info, seen: what Replicas tells        Report of the replica    60 s after its last Report
//	channels:node:{n}         hash        how many channels and members, the last      Report, UpdatePresence   10 s after its last Report
//	                                      change's id
//	channels:names:{n}        sorted set  its channels, by name (all scores are 0)     Report                   the same
//	channels:counts:{n}       hash        channel: "subscribers publishes"             Report                   the same
//	channels:members:{n}      sorted set  its members: channel, a 0 byte, id           Report, UpdatePresence   the same
//	channels:infos:{n}        hash        the same: length of the user's id, ":",      Report, UpdatePresence   the same
//	                                      the user's id, info
//	channels:names:{n}:ID …   the same four while a long report comes in               Report                   10 s after it broke off
//
// Nothing refreshes a member or a channel by itself: a replica's keys live as
// long as it reports, and vanish 10 s after its last report without anybody
// looking for them. Removing a replica with very many channels takes Redis a
// moment; "lazyfree-lazy-expire yes" does it in the background.
//
// To look at a channel, the list of replicas and the members at one of them:
//
//	redis-cli XREVRANGE 'channels:log:{chat}' + - COUNT 10
//	redis-cli GET 'channels:top:{chat}'
//	redis-cli ZRANGE 'channels:nodes:{nodes}' 0 -1 WITHSCORES
//	redis-cli HGETALL 'channels:infos:{replica-1}'
//
// To remove a message, give XDEL its id: offsets have a gap then, and who resumes
// before it is told so. The oldest entry counts as removed, too, as offsets are
// counted from the newest.
//
// While a Cluster moves a slot, Redis refuses to make a key there beside others:
// the first Append to a channel, and one with an idempotency key that is new, are
// repeated for 1.5 s and then fail with store.ErrUnavailable.
//
// # Memory and time
//
// Measured with Redis 7.0 and "make bench" (row redis-costs), on a busy machine:
//
//	                               memory                        time of Redis's processor
//	a message of 128 bytes         175 bytes                     25 µs for its Append
//	its idempotency key            180 bytes                     15 µs more
//	a channel with history         4.5 KiB besides the messages  3 µs for each name given to Tops: a hub asks
//	                                                             every 1.5 s for those with subscribers
//	a channel on a replica's list  180 bytes                     4 µs when its numbers have changed, once a
//	                                                             second at the most
//	a member                       240 bytes                     6 µs when it joins, 4 µs when it leaves
//
// So one core takes 40,000 Appends in a second, and what does not change costs
// nothing. Redis allocates 4 KiB for a stream's first entries:
// stream-node-max-bytes 1024 makes it less.
//
// Set maxmemory, and maxmemory-policy noeviction: at the limit Append fails with
// a clear error and nothing is half-written, and the history that is kept stays
// right. Report fails, too: a hub's lists and presence answer store_unavailable
// until there is memory again; so leave room. All keys have a time to live, so
// volatile-* and allkeys-* both evict them: then history is lost without need
// (its subscribers get a reset, never wrong data), and a replica's lists are
// incomplete until it reports again, within a second.
//
// # The client
//
// Set ContextTimeoutEnabled, so that a call ends its work, too, when its caller
// has gone; without it the work goes on up to the client's ReadTimeout. Set
// ConnMaxIdleTime below the time after which the server, or what is between,
// closes idle connections: over TLS, go-redis cannot see that one is closed.
//
// Every call is repeated where its connection broke. Of Append, the message is
// in the log once all the same: each call has an id, which stands in the log
// beside the message. Where a log has dropped all that was there before the
// first attempt, nobody can tell any more, and Append fails.
//
// Reads go to masters even with ReadOnly, since a replica may be behind.
//
// Every method returns when its context ends, also where Redis hangs. Besides:
//
//	what waits                           for what                             at most
//	a command                            a connection, an answer              the client's timeouts; 5 s to dial and 3 s to
//	                                                                          read in go-redis
//	a command that Redis refused for     another server, or this one later    6 more attempts, 1.55 s of pauses in all
//	the moment (READONLY, LOADING, …),
//	or that was cut off and may be
//	repeated
//	Append                               a place in a batch: 2 of up to 256   the batches before it. Each is bounded by the
//	                                     calls or 1 MiB on their way at a     latest deadline of its callers; where one has
//	                                     time, in a Cluster in each of 16     none, by the client's timeouts
//	                                     parts of the slots
//	Range                                the read under way of the same       the read, and 200 ms. One that nobody waits
//	                                     part, and its turn: 3 at once,       for any more is not waited for
//	                                     then 5 a second
//	Report, UpdatePresence               the one before it of the same        that one's context
//	                                     replica
//	what prolongs a log, after Tops      its turn; nobody waits for it        5 s, and then the next Tops
//	Close                                calls that are under way             1 s; then they end by the client's timeouts
//
// A user of Redis's ACLs needs the keys "PREFIX:*" and the commands EVAL,
// EVALSHA, INFO, GET, SET, DEL, UNLINK, EXISTS, RENAME, MGET, TIME, EXPIRE, PEXPIRE,
// PTTL, XADD, XLEN, XRANGE, XREVRANGE, XTRIM, ZADD, ZREM, ZCARD, ZLEXCOUNT,
// ZRANGEBYLEX, ZRANGEBYSCORE, ZREMRANGEBYSCORE, HSET, HGET, HMGET, HDEL, HLEN,
// and those of the client itself (HELLO, CLIENT, CLUSTER, COMMAND).
package redisstore
