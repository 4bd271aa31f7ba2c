-- Returns a replica's numbers for a channel. KEYS: its counts. ARGV: the
-- channel.
return redis.call('HGET', KEYS[1], ARGV[1])
