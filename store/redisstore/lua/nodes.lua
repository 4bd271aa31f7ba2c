-- Returns the replicas on the list that may be alive; their own keys decide.
-- KEYS: the list. ARGV: the seconds of silence after which one is certainly
-- dead.
return redis.call('ZRANGEBYSCORE', KEYS[1], redis.call('TIME')[1] - ARGV[1], '+inf')
