-- Removes a replica from the list. KEYS: the list. ARGV: the replica.
return redis.call('ZREM', KEYS[1], ARGV[1])
