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
// Whether it outlives that server depends on Redis: with "appendfsync always"
// it does. With "everysec", or if a replica takes over, the last moment may be
// lost. A log that is lost as a whole (a restart without persistence, eviction,
// FLUSHALL) begins anew under another epoch.
//
// No position ever means two messages. The data of a Redis server has one life
// at a time, which Redis names in the master_replid of INFO replication. A new
// life begins with each restart and with each promotion of a Redis replica: on
// the new master and, if it is promoted again, on the old one. Each log records
// the life that it was last appended to. If the next Append, by whichever
// process, finds another life, the log goes on at the next offset under another
// epoch. store.Page.Earlier then says up to which offset the earlier epochs are
// the same. A subscriber goes on from there; it misses nothing that Redis still
// has, and gets nothing twice.
//
// Lives also change without a loss: a first Redis replica comes, the last one
// has been gone for an hour, a Cluster moves a slot. The earlier epochs are
// then the same up to their ends. Reading changes nothing: between a loss and
// the next Append, Range and Tops show the lower top under the earlier epoch. A
// server that is no longer the master refuses both.
//
// One loss cannot be seen: older data that is put into a running server by
// RESTORE, DEBUG RELOAD or a snapshot of the machine's memory. Remove the logs
// then (the keys "PREFIX:top:*"), so that they begin anew.
//
// # The keys
//
// All names begin with the prefix. {c} is a channel and {n} a replica of the
// app, with "%" and "}" written as "%25" and "%7D". The braces are part of the
// names: a Cluster keeps keys with the same text in braces in one slot.
//
//	key                       type        what it holds                                written by               it ends
//	channels:log:{c}          stream      entries: id <offset>-<milliseconds since     Append                   HistoryTTL after the last Append
//	                                      1970>, fields header, body and call
//	                                      (an id of the Append, and behind a
//	                                      space who published)
//	channels:top:{c}          string      the epoch, the epoch at birth, the last      Append, Begin, Tops      25 h (HistoryTTL, if longer) after
//	                                      offset, HistoryTTL in ms, times of the                                the last Append; Tops makes it 36 h
//	                                      last and of the oldest entry, when it ends,                           if less than 24 h are left. Before
//	                                      the first 20 digits of the server's                                   the first Append: 20 min after Begin;
//	                                      master_replid, the earlier epochs                                     Tops makes it 30 min if less than
//	                                      ("epoch:offset,…" or "-"), and the Appends                            15 min are left
//	                                      of the last minute that were retried
//	                                      ("call:offset:milliseconds,…")
//	channels:once:{c}:KEY     string      the epoch at birth, the offset that an       Append with a key        KeyTTL after its first use
//	                                      idempotency key got, the id of the Append,
//	                                      the digest of its message
//	channels:nodes:{nodes}    sorted set  replicas, by the second of their last        Report of any replica    2 min after the last Report; a member
//	                                      report                                                                after 1 min of silence
//	channels:card:{n}         hash        started, info, seen: what Replicas returns      Report of the replica    60 s after its last Report
//	channels:node:{n}         hash        how many channels and members, the last      Report, UpdatePresence   10 s after its last Report
//	                                      change's id
//	channels:names:{n}        sorted set  its channels, by name (all scores are 0)     Report                   the same
//	channels:counts:{n}       hash        channel: "subscribers publishes"             Report                   the same
//	channels:members:{n}      sorted set  its members: channel, a 0 byte, id           Report, UpdatePresence   the same
//	channels:infos:{n}        hash        the same: length of the user's id, ":",      Report, UpdatePresence   the same
//	                                      the user's id, info
//	channels:holds:{holds}    hash        name: its holders in order, with spaces in       Hold of any replica      2 min after the last Hold
//	                                      between, a line end, its data
//	channels:holders:{holds}  sorted set  replicas, by the second of their last Hold   Hold, Forget             the same; a dead member when the
//	                                                                                                            others have what it held
//	channels:held:{holds}:N   set         the names that replica N holds               Hold                     2 min after its last Hold
//	channels:news:{holds}:N   set         those that it has to hear of                 Hold of the others       the same
//	channels:names:{n}:ID …   the same four, while a long report is being sent         Report                   10 s after the last part
//
// Nothing refreshes a single member or channel. A replica's keys live as long
// as it reports, and expire 10 s after its last report. Removing a replica with
// very many channels takes Redis a moment; "lazyfree-lazy-expire yes" does it
// in the background.
//
// To see a channel, the list of replicas, and the members on one of them:
//
//	redis-cli XREVRANGE 'channels:log:{chat}' + - COUNT 10
//	redis-cli GET 'channels:top:{chat}'
//	redis-cli ZRANGE 'channels:nodes:{nodes}' 0 -1 WITHSCORES
//	redis-cli HGETALL 'channels:infos:{replica-1}'
//
// To remove a message, give its id to XDEL. The offsets then have a gap, and a
// client that resumes before the gap gets a reset. The oldest entry no longer
// counts either, since offsets are counted from the newest.
//
// While a Cluster moves a slot, Redis refuses to make a new key there next to
// existing ones. So the first Append to a channel, and an Append with a new
// idempotency key, are retried for 1.5 s and then fail with
// store.ErrUnavailable.
//
// # Memory and time
//
// Measured with Redis 7.0 and "make bench" (row redis-costs), on a busy machine:
//
//	                               memory                        Redis's processor time
//	a message of 128 bytes         175 bytes                     25 µs for its Append
//	its idempotency key            180 bytes                     15 µs more
//	a channel with history         4.5 KiB besides the messages  3 µs for each name given to Tops; a hub asks
//	                                                             for those with subscribers every 1.5 s
//	a channel on a replica's list  180 bytes                     4 µs when its numbers have changed, at most
//	                                                             once a second
//	a member                       240 bytes                     6 µs when it joins, 4 µs when it leaves
//	a name that a replica holds:   250 bytes                     6 µs when it takes it, 6 µs when it
//	a user, a channel that is fed                                releases it; 0.1 ms a second for each
//	                                                             replica that takes part
//
// So one core takes 40,000 Appends a second, and channels and members that do
// not change cost nothing. Redis allocates 4 KiB for a stream's first entries;
// stream-node-max-bytes 1024 reduces that.
//
// Set maxmemory, and maxmemory-policy noeviction. At the limit, Append then
// fails with a clear error, nothing is half-written, and the kept history stays
// correct. Report fails too: a hub's lists and presence answer
// store_unavailable until there is memory again. So leave room. All keys have a
// time to live, so both volatile-* and allkeys-* evict them. History is then
// lost without need: its subscribers get a reset, never wrong data. A replica's
// lists are incomplete until it reports again, within a second.
//
// # The client
//
// Set ContextTimeoutEnabled, so that a call's work ends when its caller has
// gone. Without it, the work goes on for up to the client's ReadTimeout. Set
// ConnMaxIdleTime below the time after which the server, or a proxy in between,
// closes idle connections: over TLS, go-redis cannot see that a connection is
// closed.
//
// Every call is retried if its connection breaks. A retried Append still adds
// its message only once: each call has an id, which is stored in the log beside
// the message. Append fails if the log no longer has the entries from before
// the first attempt, since it is then unknown whether the message was added.
//
// Reads go to masters even if ReadOnly is set, since a Redis replica may be
// behind.
//
// Every method returns when its context ends, even if Redis hangs. Further
// bounds:
//
//	what waits                           for what                             at most
//	a command                            a connection, an answer              the client's timeouts; 5 s to dial and 3 s to
//	                                                                          read in go-redis
//	a command that Redis refused for     another server, or this one later    6 retries, with 1.55 s of pauses in all
//	the moment (READONLY, LOADING, …),
//	or whose connection broke
//	Append                               a place in a batch: 2 batches of up  the batches before it. Each is bounded by the
//	                                     to 256 calls or 1 MiB are on their   latest deadline of its callers or, if one has
//	                                     way at a time; in a Cluster, for     none, by the client's timeouts
//	                                     each 16th of the slots
//	Range                                the running read of the same part,   that read, and 200 ms. A read that all callers
//	                                     and its turn: 3 at once, then 5 a    have left is abandoned
//	                                     second
//	Report, UpdatePresence               the call before it for the same      the context of that call
//	                                     replica
//	prolonging a log, after Tops         its turn, in the background          5 s; the next Tops tries again
//	Close                                calls in progress                    1 s; then the client's timeouts end them
//
// A user in Redis's ACLs needs the keys "PREFIX:*" and the commands EVAL,
// EVALSHA, INFO, GET, SET, DEL, UNLINK, EXISTS, RENAME, MGET, TIME, EXPIRE,
// PEXPIRE, PTTL, XADD, XLEN, XRANGE, XREVRANGE, XTRIM, ZADD, ZREM, ZCARD,
// ZLEXCOUNT, ZRANGEBYLEX, ZRANGEBYSCORE, ZREMRANGEBYSCORE, HSET, HGET, HMGET,
// HDEL, HLEN, SADD, SREM, SPOP, SCARD, SMEMBERS, and those of the client itself (HELLO, CLIENT, CLUSTER, COMMAND).
package redisstore
