-- Makes a replica count as dead, so that the next one that calls inherits what it holds.
-- KEYS: the replicas. ARGV: the replica.
return redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
