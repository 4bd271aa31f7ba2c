-- Returns the replicas on the list that may be alive: their own keys decide.
-- KEYS: the list. ARGV: after how many seconds one is dead for certain.
return redis.call('ZRANGEBYSCORE', KEYS[1], redis.call('TIME')[1] - ARGV[1], '+inf')
