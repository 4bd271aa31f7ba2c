-- Adds a replica to the list, and removes those that were silent for a minute.
-- KEYS: the list. ARGV: the replica.
local now = redis.call('TIME')[1]
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60)
redis.call('EXPIRE', KEYS[1], 120)
return 1
